//! `cargo xtask kernels`: the tests on other kernels, in emulated machines.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::build;
use crate::{
    kernels::{
        Series,
        cases::{self, BROKEN, Broken, EVERYWHERE, LEFT_OUT, POWERCAP, POWERCAP_SERIES, PROGRAMS},
        console,
        initramfs::Initramfs,
        machine::{self, Machine},
        module,
        programs::Programs,
        store::{Kernel, Store},
    },
    workspace::Workspace,
};

/// What runs without a choice: the oldest that dlpm supports, and the one with real energy zones.
const DEFAULT: [&str; 2] = ["5.10", "6.1"];

/// All that are tested.
const ALL: [&str; 4] = ["5.10", "6.1", "6.12", "newest"];

/// How long a machine of the self-test may take: it boots and fails.
const BROKEN_LIMIT: Duration = Duration::from_secs(90);

/// Memory of a machine, in MiB.
const MEMORY_MIB: u32 = 1024;

/// Lines of a console that are shown where its machine failed.
const TAIL: usize = 60;

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Environment:\n  \
    DLPM_KERNELS_DIR  The folder of the cache with kernels and the emulator, instead of dlpm/kernels in the user's cache. \
    What is in it is used for a week, and longer where there is no network.")]
pub struct Args {
    /// Only the tests and cases with one of these in their name
    filter: Vec<String>,
    /// A series of kernels, such as 6.12, or `newest`; may be given several times [default: 5.10 and 6.1]
    #[arg(long = "kernel", value_name = "SERIES", conflicts_with = "all")]
    kernels: Vec<Series>,
    /// 5.10, 6.1, 6.12 and the newest that Debian serves
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
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let chosen = |names: &[&str]| names.iter().map(|name| name.parse()).collect::<Result<Vec<Series>>>();
    let series = match (&args.kernels[..], args.all) {
        (_, true) => chosen(&ALL)?,
        ([], false) => chosen(&DEFAULT)?,
        (kernels, false) => kernels.to_vec(),
    };
    if args.list {
        Lab::open(workspace, args)?.list(&series)?;
        return Ok(ExitCode::SUCCESS);
    }
    // First what needs the network, so that a lack of it does not show after minutes of compiling.
    let fetched = Fetched::new(if args.self_test { &series[..1] } else { &series }, args)?;
    let lab = Lab::open(workspace, args)?;
    let mut failed = Vec::new();
    for (kernel, headers) in &fetched.kernels {
        if args.self_test {
            return lab.self_test(&fetched.tools, kernel);
        }
        let module = match headers {
            Some(headers) => Some(module::build(workspace, headers, kernel, &lab.folder)?),
            None => None,
        };
        if !lab.test(&fetched.tools, kernel, module.as_deref())? {
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
    tools: PathBuf,
    /// Kernels, with what the module is built with where it runs.
    kernels: Vec<(Kernel, Option<PathBuf>)>,
}

impl Fetched {
    fn new(series: &[Series], args: &Args) -> Result<Self> {
        let store = Store::open(args.refresh)?;
        let mut kernels = Vec::new();
        for series in series {
            let kernel = store.kernel(series)?;
            let headers = if has_powercap(series) && !args.self_test {
                Some(store.headers(&kernel)?)
            } else {
                None
            };
            kernels.push((kernel, headers));
        }
        Ok(Self {
            tools: store.tools()?,
            kernels,
        })
    }
}

fn has_powercap(series: &Series) -> bool {
    series.to_string() == POWERCAP_SERIES
}

/// What is common to all machines of a run.
struct Lab {
    folder: PathBuf,
    programs: Programs,
    filter: Vec<String>,
    accelerator: String,
    limit: Duration,
}

/// What one machine is to do.
#[derive(Default)]
struct Plan {
    text: String,
    expected: Vec<String>,
    /// Test programs with their place in the machine.
    programs: Vec<(String, PathBuf)>,
}

impl Lab {
    fn open(workspace: &Workspace, args: &Args) -> Result<Self> {
        let object = build::object(workspace)?;
        let folder = workspace.target().join("kernels");
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            programs: Programs::build(workspace, &object, &PROGRAMS)?,
            filter: args.filter.clone(),
            accelerator: args.accel.clone().unwrap_or_else(|| machine::accelerator().to_owned()),
            limit: Duration::from_secs(args.timeout),
        })
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|part| name.contains(part))
    }

    fn plan(&self, with_powercap: bool) -> Result<Plan> {
        let mut plan = Plan::default();
        let powercap = POWERCAP.iter().filter(|_| with_powercap);
        for case in EVERYWHERE.iter().chain(powercap).filter(|case| self.is_wanted(case)) {
            plan.text.push_str(&format!("case {case}\n"));
            plan.expected.push((*case).to_owned());
        }
        for name in PROGRAMS {
            let (program, tests) = self.programs.tests(name)?;
            if let Some(test) = cases::renamed(name, &tests) {
                bail!("there is no test {name}::{test}: xtask/src/kernels/cases.rs names it");
            }
            let full = |test: &String| format!("{name}::{test}");
            let tests: Vec<String> = tests
                .into_iter()
                .filter(|test| cases::runs(name, test) && self.is_wanted(&full(test)))
                .collect();
            if tests.is_empty() {
                continue;
            }
            plan.text
                .push_str(&format!("tests {name} /tests/{name} {}\n", tests.join(" ")));
            plan.expected.extend(tests.iter().map(full));
            plan.programs.push((format!("/tests/{name}"), program));
        }
        Ok(plan)
    }

    fn list(&self, series: &[Series]) -> Result<()> {
        for series in series {
            println!("{series}:");
            for case in self.plan(has_powercap(series))?.expected {
                println!("  {case}");
            }
        }
        println!("left out:");
        for (name, reason) in LEFT_OUT {
            println!("  {name}: {reason}");
        }
        Ok(())
    }

    /// The file system that all machines share, without a plan.
    fn initramfs(&self, tools: &Path) -> Result<Initramfs> {
        let mut archive = Initramfs::with_busybox(tools)?;
        archive.program("/init", self.programs.get("bin", "dlpm-guest")?);
        archive.program("/bin/dlpm", self.programs.get("bin", "dlpm")?);
        for helper in ["dlpm-worker", "dlpm-tenant"] {
            // Here, and not where cargo put them: that may be below a folder over which a file system is mounted.
            archive.program(&format!("/bin/{helper}"), self.programs.get("bin", helper)?);
        }
        Ok(archive)
    }

    fn test(&self, tools: &Path, kernel: &Kernel, module: Option<&Path>) -> Result<bool> {
        let plan = self.plan(module.is_some())?;
        let mut archive = self.initramfs(tools)?;
        archive.text("/plan", &plan.text);
        for (path, program) in &plan.programs {
            archive.program(path, program);
        }
        if let Some(module) = module {
            archive.program("/dlpm_rapl.ko", module);
        }
        if plan.expected.is_empty() {
            bail!(
                "no case for {} has that in its name: `cargo xtask kernels --list` names all",
                kernel.series
            );
        }
        println!(
            "== {}: Linux {}, {} cases",
            kernel.series,
            kernel.release,
            plan.expected.len()
        );
        let file = self.folder.join(format!("{}.console", kernel.series));
        let (begun, mut last) = (Instant::now(), Instant::now());
        let ended = self.boot(tools, kernel, &archive, self.limit, &file, |line| {
            if let Some(words) = console::said(line) {
                let took = last.elapsed().as_secs_f64();
                println!("{:8} {took:6.1} s  {words}", kernel.series.to_string());
                last = Instant::now();
            }
        })?;
        let seconds = begun.elapsed().as_secs();
        match console::judge(&ended.console, ended.end, &plan.expected) {
            Ok(()) => {
                println!("{}: {} cases ok in {seconds} s", kernel.series, plan.expected.len());
                Ok(true)
            }
            Err(wrong) => {
                eprintln!("The end of the console, which is in {}:", file.display());
                let lines: Vec<&str> = ended.console.lines().collect();
                for line in &lines[lines.len().saturating_sub(TAIL)..] {
                    eprintln!("    {line}");
                }
                for reason in wrong {
                    eprintln!("{}: FAILED {reason}", kernel.series);
                }
                Ok(false)
            }
        }
    }

    /// Machines that must fail: where one of them is taken for a success, so would be a broken dlpm.
    fn self_test(&self, tools: &Path, kernel: &Kernel) -> Result<ExitCode> {
        println!(
            "== self-test: Linux {}, {} machines that must fail",
            kernel.release,
            BROKEN.len()
        );
        let (mut wrong, mut slowest) = (Vec::new(), Duration::ZERO);
        for Broken { case, about, reason } in BROKEN {
            let mut archive = self.initramfs(tools)?;
            archive.text("/plan", &format!("case no-btf\ncase {case}\n"));
            let file = self.folder.join(format!("{}-{case}.console", kernel.series));
            // One that hangs is given up after three times what the others took to boot and fail.
            let limit = if case == "hang" { slowest * 3 } else { BROKEN_LIMIT };
            let begun = Instant::now();
            let ended = self.boot(tools, kernel, &archive, limit, &file, |_| {})?;
            slowest = slowest.max(begun.elapsed());
            let expected = ["no-btf".to_owned(), case.to_owned()];
            let verdict = console::judge(&ended.console, ended.end, &expected);
            let booted = ended
                .console
                .lines()
                .any(|line| console::said(line) == Some("ok no-btf"));
            match verdict {
                Err(reasons) if booted && (reasons.join("\n").contains(reason) || ended.console.contains(reason)) => {
                    println!("ok: {about} fails ({})", reasons.join("; "));
                }
                Err(reasons) => wrong.push(format!(
                    "{case} failed for another reason ({}), see {}",
                    reasons.join("; "),
                    file.display()
                )),
                Ok(()) => wrong.push(format!("{case} ({about}) was taken for a success")),
            }
        }
        if !wrong.is_empty() {
            bail!("{}", wrong.join("; "));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn boot(
        &self,
        tools: &Path,
        kernel: &Kernel,
        archive: &Initramfs,
        limit: Duration,
        console: &Path,
        mut tell: impl FnMut(&str),
    ) -> Result<machine::Ended> {
        // Another run may boot at the same time.
        let initramfs = self.folder.join(format!("initramfs-{}", process::id()));
        archive.write(&initramfs)?;
        // Written as it comes, so that one can look at a machine that hangs.
        let mut file = File::create(console)?;
        let machine = Machine {
            kernel: &kernel.image,
            initramfs: Some(&initramfs),
            append: String::new(),
            memory_mib: MEMORY_MIB,
            disks: Vec::new(),
            network: None,
        };
        let ended = machine::boot(tools, &self.accelerator, &machine, limit, |line| {
            writeln!(file, "{line}")?;
            tell(line);
            Ok(())
        });
        fs::remove_file(&initramfs)?;
        ended
    }
}
