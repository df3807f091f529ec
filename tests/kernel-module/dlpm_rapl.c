// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Energy zones for a virtual machine: a powercap control type `intel-rapl` with package-0 and, listed under it, core,
 * uncore and dram, as the driver of a real machine registers them. So `energy_uj` has the kernel's own permissions and
 * errors. The counters follow CPU time (watts while idle, and watts for each busy CPU), and run through their range
 * within seconds.
 *
 * For tests only. The module parameters are the way to its own record:
 *
 *   total_uj   (read)   energy of package-0, core, uncore and dram since the module was loaded, in µJ, without wraps
 *   range_factor        times the ranges of the model, for a test that has no use for wraps
 *   failing    (write)  index of the zone whose counter cannot be read, or -1
 */
#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/kernel_stat.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/powercap.h>
#include <linux/spinlock.h>
#include <linux/tick.h>

enum { PACKAGE, CORE, UNCORE, DRAM, ZONES };

/* Power while idle and for each busy CPU, in mW. That of the package is what it draws beside core and uncore. */
static const struct {
	const char *name;
	u64 idle_mw;
	u64 busy_mw;
	u64 range_uj;
} MODEL[ZONES] = {
	[PACKAGE] = { "package-0", 5000, 2000, 120000000 },
	[CORE] = { "core", 4000, 20000, 90000000 },
	[UNCORE] = { "uncore", 2000, 3000, 20000000 },
	[DRAM] = { "dram", 3000, 1500, 15000000 },
};

static struct powercap_control_type *control;
static struct powercap_zone zones[ZONES];
static int registered;
static int failing = -1;
module_param(failing, int, 0644);
static u64 range_factor = 1;
module_param(range_factor, ullong, 0444);

static DEFINE_SPINLOCK(lock);
static u64 loaded_ns;
static u64 idle_at_load_ns;
static u64 busy_ns;

/* Time that all CPUs were idle since boot, in ns. */
static u64 idle_ns(void)
{
	u64 sum = 0;
	int cpu;

	for_each_online_cpu(cpu) {
		u64 us = get_cpu_idle_time_us(cpu, NULL);

		/* -1: this kernel or CPU does not stop its tick, so that the tick's own count is as good. */
		sum += us == (u64)-1 ? kcpustat_cpu(cpu).cpustat[CPUTIME_IDLE] : us * 1000;
	}
	return sum;
}

/* Energy of every zone since the module was loaded, in µJ, at one moment. mW times ns are pJ. */
static void energy(u64 uj[ZONES])
{
	u64 wall_ns, idle, busy;
	int zone;

	spin_lock(&lock);
	wall_ns = ktime_get_ns() - loaded_ns;
	idle = idle_ns() - idle_at_load_ns;
	busy = wall_ns * num_online_cpus();
	busy = busy > idle ? busy - idle : 0;
	/* The idle time of a CPU that is idle now is not exact, and energy never flows back. */
	busy_ns = max(busy_ns, busy);
	for (zone = 0; zone < ZONES; zone++)
		uj[zone] = div_u64(MODEL[zone].idle_mw * wall_ns + MODEL[zone].busy_mw * busy_ns, 1000000);
	spin_unlock(&lock);
	uj[PACKAGE] += uj[CORE] + uj[UNCORE];
}

static int get_energy_uj(struct powercap_zone *zone, u64 *value)
{
	int index = zone - zones;
	u64 uj[ZONES];

	if (index == failing)
		return -EIO;
	energy(uj);
	*value = uj[index] % (MODEL[index].range_uj * range_factor + 1);
	return 0;
}

static int get_max_energy_range_uj(struct powercap_zone *zone, u64 *value)
{
	*value = MODEL[zone - zones].range_uj * range_factor;
	return 0;
}

static int release(struct powercap_zone *zone)
{
	return 0;
}

static const struct powercap_zone_ops OPERATIONS = {
	.get_energy_uj = get_energy_uj,
	.get_max_energy_range_uj = get_max_energy_range_uj,
	.release = release,
};

/* The kernel asks for these also where a zone has no constraint; then none of them is called. */
static int get_constraint(struct powercap_zone *zone, int id, u64 *value)
{
	return -ENODATA;
}

static int set_constraint(struct powercap_zone *zone, int id, u64 value)
{
	return -ENODATA;
}

static const struct powercap_zone_constraint_ops NO_CONSTRAINTS = {
	.get_power_limit_uw = get_constraint,
	.set_power_limit_uw = set_constraint,
	.get_time_window_us = get_constraint,
	.set_time_window_us = set_constraint,
};

static int total_uj_get(char *buffer, const struct kernel_param *parameter)
{
	u64 uj[ZONES];

	energy(uj);
	return sysfs_emit(buffer, "%llu %llu %llu %llu\n", uj[PACKAGE], uj[CORE], uj[UNCORE], uj[DRAM]);
}

static const struct kernel_param_ops TOTAL_UJ = { .get = total_uj_get };
module_param_cb(total_uj, &TOTAL_UJ, NULL, 0400);

static void unregister(void)
{
	while (registered > 0)
		powercap_unregister_zone(control, &zones[--registered]);
	powercap_unregister_control_type(control);
}

static int __init dlpm_rapl_init(void)
{
	struct powercap_zone *made;

	loaded_ns = ktime_get_ns();
	idle_at_load_ns = idle_ns();
	control = powercap_register_control_type(NULL, "intel-rapl", NULL);
	if (IS_ERR(control))
		return PTR_ERR(control);
	for (; registered < ZONES; registered++) {
		made = powercap_register_zone(&zones[registered], control, MODEL[registered].name,
					      registered == PACKAGE ? NULL : &zones[PACKAGE], &OPERATIONS, 0,
					      &NO_CONSTRAINTS);
		if (IS_ERR(made)) {
			unregister();
			return PTR_ERR(made);
		}
	}
	return 0;
}

static void __exit dlpm_rapl_exit(void)
{
	unregister();
}

module_init(dlpm_rapl_init);
module_exit(dlpm_rapl_exit);
MODULE_DESCRIPTION("Energy zones for tests of dlpm in a virtual machine");
MODULE_LICENSE("Dual MIT/GPL");
