// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Energy of each core for a virtual machine: the PMUs `power` (event energy-pkg) and `power_core` (event energy-core), with
 * the files that the kernel's own driver for AMD has. Each CPU is a core that draws watts of its own while it is busy, so
 * that equal CPU time is not equal energy. Counters are µJ.
 *
 * For tests only. The module parameter is the way to its own record:
 *
 *   total_uj   (read)   energy since the module was loaded, in µJ: of the package, then of each core
 */
#include <linux/cpumask.h>
#include <linux/device.h>
#include <linux/kernel_stat.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/perf_event.h>
#include <linux/spinlock.h>
#include <linux/tick.h>

enum { CORES = 2 };

/* Power of a core while idle, and what it draws more while busy, in mW; and that of the package beside its cores. */
static const u64 IDLE_MW = 1000;
static const u64 BUSY_MW[CORES] = { 4000, 19000 };
static const u64 REST_MW = 3000;

static DEFINE_SPINLOCK(lock);
static u64 loaded_ns;
static u64 idle_at_load_ns[CORES];
static u64 busy_ns[CORES];

/* Time that a CPU was idle since boot, in ns. */
static u64 idle_ns(int cpu)
{
	u64 us = get_cpu_idle_time_us(cpu, NULL);

	/* -1: this kernel or CPU does not stop its tick, so that the tick's own count is as good. */
	return us == (u64)-1 ? kcpustat_cpu(cpu).cpustat[CPUTIME_IDLE] : us * 1000;
}

/* Energy of the package and of each core since the module was loaded, in µJ, at one moment. mW times ns are pJ. */
static u64 energy(u64 uj[CORES])
{
	unsigned long flags;
	u64 wall_ns, sum;
	int core;

	/* Counters are read with interrupts off, the parameter is not. */
	spin_lock_irqsave(&lock, flags);
	wall_ns = ktime_get_ns() - loaded_ns;
	sum = div_u64(REST_MW * wall_ns, 1000000);
	for (core = 0; core < CORES; core++) {
		u64 idle = idle_ns(core) - idle_at_load_ns[core];
		u64 busy = wall_ns > idle ? wall_ns - idle : 0;

		/* The idle time of a CPU that is idle now is not exact, and energy never flows back. */
		busy_ns[core] = max(busy_ns[core], busy);
		uj[core] = div_u64(IDLE_MW * wall_ns + BUSY_MW[core] * busy_ns[core], 1000000);
		sum += uj[core];
	}
	spin_unlock_irqrestore(&lock, flags);
	return sum;
}

static struct pmu package_pmu, core_pmu;

static u64 counter_uj(struct perf_event *event)
{
	u64 uj[CORES];
	u64 package = energy(uj);

	return event->pmu == &package_pmu ? package : uj[event->cpu];
}

static void event_read(struct perf_event *event)
{
	u64 now = counter_uj(event);
	u64 before = local64_xchg(&event->hw.prev_count, now);

	local64_add(now - before, &event->count);
}

static void event_start(struct perf_event *event, int flags)
{
	local64_set(&event->hw.prev_count, counter_uj(event));
}

static void event_stop(struct perf_event *event, int flags)
{
	event_read(event);
}

static int event_add(struct perf_event *event, int flags)
{
	if (flags & PERF_EF_START)
		event_start(event, flags);
	return 0;
}

static void event_del(struct perf_event *event, int flags)
{
	event_stop(event, flags);
}

static int event_init(struct perf_event *event)
{
	if (event->attr.type != event->pmu->type)
		return -ENOENT;
	/* A counter of the machine, not of a task. */
	if (event->cpu < 0 || event->cpu >= CORES || is_sampling_event(event))
		return -EINVAL;
	return 0;
}

static ssize_t cpumask_show(struct device *device, struct device_attribute *attribute, char *buffer)
{
	struct pmu *pmu = dev_get_drvdata(device);

	return sysfs_emit(buffer, pmu == &package_pmu ? "0\n" : "0-%d\n", CORES - 1);
}
static DEVICE_ATTR_RO(cpumask);

static struct attribute *cpumask_attributes[] = { &dev_attr_cpumask.attr, NULL };
static const struct attribute_group CPUMASK = { .attrs = cpumask_attributes };

PMU_FORMAT_ATTR(event, "config:0-7");
static struct attribute *format_attributes[] = { &format_attr_event.attr, NULL };
static const struct attribute_group FORMAT = { .name = "format", .attrs = format_attributes };

PMU_EVENT_ATTR_STRING(energy-pkg, package_event, "event=0x01");
PMU_EVENT_ATTR_STRING(energy-pkg.unit, package_unit, "Joules");
PMU_EVENT_ATTR_STRING(energy-pkg.scale, package_scale, "1e-6");
static struct attribute *package_events[] = {
	&package_event.attr.attr, &package_unit.attr.attr, &package_scale.attr.attr, NULL
};
static const struct attribute_group PACKAGE_EVENTS = { .name = "events", .attrs = package_events };
static const struct attribute_group *package_groups[] = { &CPUMASK, &FORMAT, &PACKAGE_EVENTS, NULL };

PMU_EVENT_ATTR_STRING(energy-core, core_event, "event=0x01");
PMU_EVENT_ATTR_STRING(energy-core.unit, core_unit, "Joules");
PMU_EVENT_ATTR_STRING(energy-core.scale, core_scale, "1e-6");
static struct attribute *core_events[] = {
	&core_event.attr.attr, &core_unit.attr.attr, &core_scale.attr.attr, NULL
};
static const struct attribute_group CORE_EVENTS = { .name = "events", .attrs = core_events };
static const struct attribute_group *core_groups[] = { &CPUMASK, &FORMAT, &CORE_EVENTS, NULL };

#define ENERGY_PMU(groups)                                   \
	{                                                    \
		.task_ctx_nr = perf_invalid_context,         \
		.event_init = event_init,                    \
		.add = event_add,                            \
		.del = event_del,                            \
		.start = event_start,                        \
		.stop = event_stop,                          \
		.read = event_read,                          \
		.attr_groups = groups,                       \
		.capabilities = PERF_PMU_CAP_NO_EXCLUDE,     \
		.module = THIS_MODULE,                       \
	}
static struct pmu package_pmu = ENERGY_PMU(package_groups);
static struct pmu core_pmu = ENERGY_PMU(core_groups);

static int total_uj_get(char *buffer, const struct kernel_param *parameter)
{
	u64 uj[CORES];
	u64 package = energy(uj);

	return sysfs_emit(buffer, "%llu %llu %llu\n", package, uj[0], uj[1]);
}

static const struct kernel_param_ops TOTAL_UJ = { .get = total_uj_get };
module_param_cb(total_uj, &TOTAL_UJ, NULL, 0400);

static int __init dlpm_cores_init(void)
{
	int core, result;

	if (num_online_cpus() != CORES)
		return -ENODEV;
	loaded_ns = ktime_get_ns();
	for (core = 0; core < CORES; core++)
		idle_at_load_ns[core] = idle_ns(core);
	result = perf_pmu_register(&package_pmu, "power", -1);
	if (result)
		return result;
	result = perf_pmu_register(&core_pmu, "power_core", -1);
	if (result)
		perf_pmu_unregister(&package_pmu);
	return result;
}

static void __exit dlpm_cores_exit(void)
{
	perf_pmu_unregister(&core_pmu);
	perf_pmu_unregister(&package_pmu);
}

module_init(dlpm_cores_init);
module_exit(dlpm_cores_exit);
MODULE_DESCRIPTION("Energy of each core for tests of dlpm in a virtual machine");
MODULE_LICENSE("Dual MIT/GPL");
