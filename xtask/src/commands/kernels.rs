//! `cargo xtask kernels`: the tests on other kernels, in emulated machines.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};

use super::build;
use crate::{
    kernels::{
        Series,
        cases::{self, LEFT_OUT},
        lab::{Lab, Meters},
        machine, module,
        programs::Programs,
        store::{Kernel, Store},
        tools::Tools,
    },
    targets::Arch,
    workspace::Workspace,
};

/// What runs without a choice on x86-64: the oldest that dlpm supports, and the one with real energy zones.
const DEFAULT: [&str; 2] = ["5.10", "6.1"];

/// All that are tested on x86-64.
const ALL: [&str; 4] = ["5.10", "6.1", "6.12", "newest"];

/// All that are tested on 64-bit Arm, where they also run without a choice.
const ALL_ARM64: [&str; 4] = ["6.1", "6.12", "newest", "newest-16k"];

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Environment:\n  \
    DLPM_KERNELS_DIR  The folder of the cache with kernels and the emulator, instead of dlpm/kernels in the user's cache. \
    What is in it is used for a week, and longer where there is no network.")]
pub struct Args {
    /// Only the tests and cases with one of these in their name
    filter: Vec<String>,
    /// The processor of the machines
    #[arg(long, value_enum, default_value_t = Arch::Amd64)]
    arch: Arch,
    /// A series of kernels, such as 6.12, or `newest`, on arm64 also 6.12-16k or `newest-16k`; may be given several times
    /// [default: 5.10 and 6.1; on arm64 those of --all]
    #[arg(long = "kernel", value_name = "SERIES", conflicts_with = "all")]
    kernels: Vec<Series>,
    /// 5.10, 6.1, 6.12 and the newest that Debian serves; on arm64 6.1, 6.12, the newest, and that with pages of 16 KiB
    #[arg(long)]
    all: bool,
    /// Prove that a machine can fail: boot four that must, on the first kernel of the choice, and run nothing else
    #[arg(long, conflicts_with = "filter")]
    self_test: bool,
    /// Say what is tested on which kernel and what is left out, and boot nothing
    #[arg(long)]
    list: bool,
    /// Fetch kernels and emulator anew, instead of using what is in the cache for a week
    #[arg(long)]
    refresh: bool,
    /// What QEMU runs the machines with, as its option `-accel` takes it [default: kvm where the processor has it, else
    /// tcg,thread=single]
    #[arg(long, value_name = "ACCELERATOR")]
    accel: Option<String>,
    /// Seconds without the end of a case after which a machine has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
    /// The program to test, instead of one with little optimisation: such as those that `cargo xtask package` builds
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    program: Option<PathBuf>,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let chosen = |names: &[&str]| names.iter().map(|name| name.parse()).collect::<Result<Vec<Series>>>();
    let series = match (&args.kernels[..], args.all, args.arch) {
        (_, true, Arch::Amd64) => chosen(&ALL)?,
        ([], false, Arch::Amd64) => chosen(&DEFAULT)?,
        ([], _, Arch::Arm64) | (_, true, Arch::Arm64) => chosen(&ALL_ARM64)?,
        (kernels, false, _) => kernels.to_vec(),
    };
    // Not after minutes of compiling.
    for series in &series {
        series.meta_packages(args.arch)?;
    }
    if args.list {
        list(workspace, args, &series)?;
        return Ok(ExitCode::SUCCESS);
    }
    // First what needs the network, so that a lack of it does not show after minutes of compiling.
    let fetched = Fetched::new(if args.self_test { &series[..1] } else { &series }, args)?;
    let lab = lab(workspace, args, fetched.tools)?;
    let mut failed = Vec::new();
    for (kernel, sources) in &fetched.kernels {
        if args.self_test {
            return lab.self_test(kernel);
        }
        let meters = sources.meters(workspace, kernel, lab.folder())?;
        if !lab.test(kernel, &meters)? {
            failed.push(kernel.release.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// What comes from the cache or the network.
struct Fetched {
    tools: Tools,
    kernels: Vec<(Kernel, Sources)>,
}

/// What the meters of a kernel's machine are made with, if it has any.
#[derive(Default)]
struct Sources {
    /// Headers of the kernel, for modules of ours.
    headers: Option<PathBuf>,
    /// The compiler of ACPI's tables.
    acpi: Option<Tools>,
}

impl Fetched {
    fn new(series: &[Series], args: &Args) -> Result<Self> {
        let store = Store::open(args.arch, args.refresh)?;
        let mut kernels = Vec::new();
        for series in series {
            let kernel = store.kernel(series)?;
            let mut sources = Sources::default();
            if cases::has_powercap(args.arch, series) && !args.self_test {
                sources.headers = Some(store.headers(&kernel)?);
            }
            if cases::has_acpi_power(args.arch, series) && !args.self_test {
                sources.acpi = Some(store.acpi_compiler()?);
            }
            kernels.push((kernel, sources));
        }
        Ok(Self {
            tools: store.tools()?,
            kernels,
        })
    }
}

impl Sources {
    /// Makes the meters, in a folder.
    fn meters(&self, workspace: &Workspace, kernel: &Kernel, folder: &Path) -> Result<Meters> {
        let mut meters = Meters::default();
        if let Some(headers) = &self.headers {
            meters
                .modules
                .extend(module::build(workspace, headers, kernel, folder)?);
        }
        if let Some(compiler) = &self.acpi {
            meters.modules.push(kernel.driver("hwmon/acpi_power_meter")?);
            meters.acpi_table = Some(module::power_meters(workspace, compiler, folder)?);
        }
        Ok(meters)
    }
}

fn lab(workspace: &Workspace, args: &Args, tools: Tools) -> Result<Lab> {
    let object = build::object(workspace)?;
    let mut programs = Programs::build(workspace, &object, &tools, &cases::programs(args.arch))?;
    if let Some(program) = &args.program {
        programs.replace_dlpm(program)?;
    }
    let accelerator = args.accel.as_deref();
    Lab::open(
        workspace,
        tools,
        programs,
        &args.filter,
        accelerator.unwrap_or(machine::accelerator(args.arch)),
        Duration::from_secs(args.timeout),
    )
}

fn list(workspace: &Workspace, args: &Args, series: &[Series]) -> Result<()> {
    let tools = match args.arch {
        // Its programs run here without any.
        Arch::Amd64 => Tools::new("".as_ref(), args.arch),
        Arch::Arm64 => Store::open(args.arch, args.refresh)?.tools()?,
    };
    let lab = lab(workspace, args, tools)?;
    for series in series {
        println!("{series}:");
        for case in lab.cases(series)? {
            println!("  {case}");
        }
    }
    println!("left out:");
    for (name, reason) in LEFT_OUT.iter().chain(cases::left_out_of(args.arch)) {
        println!("  {name}: {reason}");
    }
    Ok(())
}
