//! Machines of one processor, and what they are to do: boots them, and judges them by their consoles.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    Series,
    cases::{self, BROKEN, Broken},
    console,
    initramfs::Initramfs,
    machine::{self, Machine},
    programs::Programs,
    store::Kernel,
    tools::Tools,
};
use crate::{targets::Arch, workspace::Workspace};

/// How long a machine of the self-test may take: it boots and fails.
const BROKEN_LIMIT: Duration = Duration::from_secs(90);

/// Memory of a machine, in MiB.
const MEMORY_MIB: u32 = 1024;

/// Lines of a console that are shown where its machine failed.
const TAIL: usize = 60;

/// What is common to all machines of a run.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    tools: Tools,
    programs: Programs,
    filter: Vec<String>,
    accelerator: String,
    limit: Duration,
}

/// What gives a machine energy meters, if anything does.
#[derive(Debug, Default)]
pub struct Meters {
    /// Modules, which are put into `/`.
    pub modules: Vec<PathBuf>,
    /// A table of ACPI.
    pub acpi_table: Option<PathBuf>,
}

/// What only some machines have.
#[derive(Clone, Copy, Debug, Default)]
struct Special<'a> {
    acpi_table: Option<&'a Path>,
    counts_instructions: bool,
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
    /// A lab for the cases with one of `filter` in their name. A machine has failed when no case ends within `limit`.
    pub fn open(
        workspace: &Workspace,
        tools: Tools,
        programs: Programs,
        filter: &[String],
        accelerator: &str,
        limit: Duration,
    ) -> Result<Self> {
        let folder = workspace.target().join("kernels");
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            tools,
            programs,
            filter: filter.to_vec(),
            accelerator: accelerator.to_owned(),
            limit,
        })
    }

    /// The folder for what is made in a run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|part| name.contains(part))
    }

    /// The names of all cases for a series.
    pub fn cases(&self, series: &Series) -> Result<Vec<String>> {
        let repeated = self.repeated(series).map(str::to_owned);
        let mut cases = self.plan(series)?.expected;
        cases.extend(repeated);
        Ok(cases)
    }

    /// The case that is compared between two machines with the same clock of instructions, if it is wanted.
    fn repeated(&self, series: &Series) -> Option<&'static str> {
        cases::repeated(self.tools.arch(), series).filter(|case| self.is_wanted(case))
    }

    fn plan(&self, series: &Series) -> Result<Plan> {
        let mut plan = Plan::default();
        for case in cases::of(self.tools.arch(), series).filter(|case| self.is_wanted(case)) {
            plan.text.push_str(&format!("case {case}\n"));
            plan.expected.push(case.to_owned());
        }
        for name in cases::programs(self.tools.arch()) {
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

    /// The file system that all machines share, without a plan.
    fn initramfs(&self) -> Result<Initramfs> {
        let mut archive = Initramfs::with_busybox(&self.tools)?;
        archive.program("/init", self.programs.get("bin", "dlpm-guest")?);
        archive.program("/bin/dlpm", self.programs.get("bin", "dlpm")?);
        for (path, library) in self.programs.libraries()? {
            archive.program(&path, &library);
        }
        for helper in ["dlpm-worker", "dlpm-tenant"] {
            // Here, and not where cargo put them: that may be below a folder over which a file system is mounted.
            archive.program(&format!("/bin/{helper}"), self.programs.get("bin", helper)?);
        }
        Ok(archive)
    }

    /// Boots a kernel with all of its cases; whether they passed.
    pub fn test(&self, kernel: &Kernel, meters: &Meters) -> Result<bool> {
        let plan = self.plan(&kernel.series)?;
        let repeated = self.repeated(&kernel.series);
        if plan.expected.is_empty() && repeated.is_none() {
            bail!(
                "no case for {} has that in its name: `cargo xtask kernels --list` names all",
                kernel.series
            );
        }
        for (name, reason) in cases::left_out_of(self.tools.arch()) {
            println!("left out on {}: {name}, since {reason}", self.tools.arch());
        }
        let passed = plan.expected.is_empty() || self.run(kernel, &plan, meters)?;
        let repeats = match repeated {
            Some(case) => self.repeats(kernel, case)?,
            None => true,
        };
        Ok(passed && repeats)
    }

    fn run(&self, kernel: &Kernel, plan: &Plan, meters: &Meters) -> Result<bool> {
        let mut archive = self.initramfs()?;
        archive.text("/plan", &plan.text);
        for (path, program) in &plan.programs {
            archive.program(path, program);
        }
        for module in &meters.modules {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            archive.program(&format!("/{name}"), module);
        }
        println!(
            "== {}: Linux {}, {} cases",
            kernel.series,
            kernel.release,
            plan.expected.len()
        );
        let special = Special {
            acpi_table: meters.acpi_table.as_deref(),
            ..Special::default()
        };
        let file = self.console(kernel, "");
        let (begun, mut last) = (Instant::now(), Instant::now());
        let ended = self.boot(kernel, &archive, &special, self.limit, &file, |line| {
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
                tell_failure(kernel, &ended.console, &file, &wrong);
                Ok(false)
            }
        }
    }

    /// Boots two machines whose clock counts their instructions: what the case tells is the same in both.
    fn repeats(&self, kernel: &Kernel, case: &str) -> Result<bool> {
        println!(
            "== {}: Linux {}, {case}: two machines that count instructions",
            kernel.series, kernel.release
        );
        let mut archive = self.initramfs()?;
        archive.text("/plan", &format!("case {case}\n"));
        let special = Special {
            counts_instructions: true,
            ..Special::default()
        };
        let mut told = Vec::new();
        for number in ["1", "2"] {
            let file = self.console(kernel, &format!("-{case}-{number}"));
            let begun = Instant::now();
            let ended = self.boot(kernel, &archive, &special, self.limit, &file, |_| {})?;
            if let Err(wrong) = console::judge(&ended.console, ended.end, &[case.to_owned()]) {
                tell_failure(kernel, &ended.console, &file, &wrong);
                return Ok(false);
            }
            let figures: Vec<String> = console::figures(&ended.console)
                .into_iter()
                .map(str::to_owned)
                .collect();
            println!(
                "{:8} {:6.1} s  {}",
                kernel.series.to_string(),
                begun.elapsed().as_secs_f64(),
                figures.join("; ")
            );
            told.push(figures);
        }
        if told[0].is_empty() || told[0] != told[1] {
            eprintln!(
                "{}: FAILED {case}: two machines with the same clock tell different figures, or none",
                kernel.series
            );
            return Ok(false);
        }
        println!("{}: {case} ok", kernel.series);
        Ok(true)
    }

    /// Where what a machine says is written.
    fn console(&self, kernel: &Kernel, suffix: &str) -> PathBuf {
        let arch = match self.tools.arch() {
            Arch::Amd64 => String::new(),
            Arch::Arm64 => format!("{}-", Arch::Arm64),
        };
        self.folder.join(format!("{arch}{}{suffix}.console", kernel.series))
    }

    /// Machines that must fail: where one of them is taken for a success, so would be a broken dlpm.
    pub fn self_test(&self, kernel: &Kernel) -> Result<ExitCode> {
        println!(
            "== self-test: Linux {}, {} machines that must fail",
            kernel.release,
            BROKEN.len()
        );
        let (mut wrong, mut slowest) = (Vec::new(), Duration::ZERO);
        for Broken { case, about, reason } in BROKEN {
            let mut archive = self.initramfs()?;
            archive.text("/plan", &format!("case no-btf\ncase {case}\n"));
            let file = self.console(kernel, &format!("-{case}"));
            // One that hangs is given up after three times what the others took to boot and fail.
            let limit = if case == "hang" { slowest * 3 } else { BROKEN_LIMIT };
            let begun = Instant::now();
            let ended = self.boot(kernel, &archive, &Special::default(), limit, &file, |_| {})?;
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
        kernel: &Kernel,
        archive: &Initramfs,
        special: &Special,
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
            acpi_table: special.acpi_table,
            counts_instructions: special.counts_instructions,
        };
        let ended = machine::boot(&self.tools, &self.accelerator, &machine, limit, |line| {
            writeln!(file, "{line}")?;
            tell(line);
            Ok(())
        });
        fs::remove_file(&initramfs)?;
        ended
    }
}

fn tell_failure(kernel: &Kernel, console: &str, file: &Path, wrong: &[String]) {
    eprintln!("The end of the console, which is in {}:", file.display());
    let lines: Vec<&str> = console.lines().collect();
    for line in &lines[lines.len().saturating_sub(TAIL)..] {
        eprintln!("    {line}");
    }
    for reason in wrong {
        eprintln!("{}: FAILED {reason}", kernel.series);
    }
}
