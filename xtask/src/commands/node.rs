//! `cargo xtask node`: dlpm's package on a Debian node with systemd, Slurm, containers and Prometheus, in an emulated machine.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{build, package, test::DUCKDB};
use crate::{
    kernels::{
        cases, console,
        machine::{self, Machine},
        module,
        programs::Programs,
        store::{Kernel, Store},
        tools::Tools,
    },
    node::{
        CODENAME, Disks, SERIES,
        cases::{Boot, NODE, PAIR},
        make_disk, recipe,
    },
    package::{debian, program::Product},
    process::{require_root, run},
    pypi,
    targets::Arch,
    workspace::Workspace,
};

/// Memory of a node, in MiB.
const MEMORY_MIB: u32 = 2048;

/// Lines of a console that are shown where its machine failed.
const TAIL: usize = 80;

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "The node's disk is made by mmdebstrap of Debian's packages, about 200 MB of them, and kept in the \
    cache of `cargo xtask kernels` for a week. Making it needs root.\n\n\
    Environment:\n  \
    DLPM_KERNELS_DIR  The folder of the cache, instead of dlpm/kernels in the user's cache"
)]
pub struct Args {
    /// The Debian package to install, such as one of `cargo xtask package`, instead of one with a program as the tests use it
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
    /// Say what runs on the nodes, and boot nothing
    #[arg(long)]
    list: bool,
    /// Make disk, kernel and emulator anew, instead of using what is in the cache for a week
    #[arg(long)]
    refresh: bool,
    /// What QEMU runs the machines with, as its option `-accel` takes it [default: kvm where the processor has it, else
    /// tcg,thread=single]
    #[arg(long, value_name = "ACCELERATOR")]
    accel: Option<String>,
    /// Seconds without the end of a case after which a node has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
    /// One node, which is started again; or a pair of nodes [default: both]
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Run only these cases, in their order; some need others
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Part {
    Node,
    Pair,
}

pub fn main(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let wanted = |part: Part, boots: &'static [Boot]| {
        let is_wanted = args.part.is_none_or(|wanted| wanted == part);
        boots.iter().filter(move |_| is_wanted)
    };
    let boots = wanted(Part::Node, &NODE).chain(wanted(Part::Pair, &PAIR));
    if args.list {
        for boot in boots {
            println!("{}:", boot.about);
            for (node, cases) in boot.nodes {
                println!("  {node}: {}", cases.join(", "));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let lab = Lab::open(workspace, args)?;
    let is_wanted = |case: &&str| args.only.is_empty() || args.only.iter().any(|wanted| wanted == case);
    let has_any = |boot: &&Boot| boot.nodes.iter().any(|(_, cases)| cases.iter().any(&is_wanted));
    for boot in boots.filter(has_any) {
        if !lab.run(boot)? {
            bail!("failed on {}", boot.about);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is common to all nodes of a run.
struct Lab {
    /// For what is made in this run.
    folder: PathBuf,
    /// What goes on the disk with the test, but for the plan.
    test: PathBuf,
    /// Where `/t/duckdb` comes from, if it is needed.
    duckdb: Option<PathBuf>,
    tools: Tools,
    kernel: Kernel,
    system: PathBuf,
    accelerator: String,
    limit: Duration,
    only: Vec<String>,
}

impl Lab {
    fn open(workspace: &Workspace, args: &Args) -> Result<Self> {
        require_root()?;
        // First what needs the network, so that a lack of it does not show after minutes of compiling.
        let store = Store::open(Arch::Amd64, args.refresh)?;
        let kernel = store.kernel(&SERIES.parse()?)?;
        let headers = store.headers(&kernel)?;
        let tools = store.tools()?;
        let recipe = recipe(workspace, &kernel)?;
        let system = store.disk(CODENAME, &recipe, |sources, folder, image| {
            make_disk(workspace, &kernel, sources, folder, image)
        })?;

        let duckdb = match args.part {
            Some(Part::Node) => None,
            _ => Some(pypi::folder_for_bookworm(workspace, "duckdb", &DUCKDB)?),
        };

        let folder = workspace.target().join("node");
        let test = folder.join("test");
        let _ = fs::remove_dir_all(&test);
        fs::create_dir_all(&test).with_context(|| format!("cannot create {}", test.display()))?;
        let object = build::object(workspace)?;
        let programs = Programs::build(workspace, &object, &tools, &cases::programs(Arch::Amd64))?;
        for name in ["dlpm-node", "dlpm-burn"] {
            copy(programs.get("bin", name)?, &test)?;
        }
        match &args.package {
            Some(package) => copy(package, &test)?,
            None => {
                let program = programs.get("bin", "dlpm")?.to_owned();
                let product = Product {
                    target: Arch::Amd64.gnu(),
                    speaker: program.clone(),
                    program,
                };
                debian::build(workspace, &product, &test, package::epoch_s(workspace)?)?;
            }
        }
        copy(&workspace.root().join("tests/node/kubelet.py"), &test)?;
        let [zones, _] = module::build(workspace, &headers, &kernel, &folder)?;
        copy(&zones, &test)?;
        Ok(Self {
            folder,
            test,
            duckdb,
            tools,
            kernel,
            system,
            accelerator: args
                .accel
                .clone()
                .unwrap_or_else(|| machine::accelerator(Arch::Amd64).to_owned()),
            limit: Duration::from_secs(args.timeout),
            only: args.only.clone(),
        })
    }

    /// Whether all nodes of a boot said that they were right.
    fn run(&self, boot: &Boot) -> Result<bool> {
        println!("== {}: Linux {}", boot.about, self.kernel.release);
        // Sockets have short names, and the target folder may not.
        let sockets = std::env::temp_dir().join(format!("dlpm-node-{}", process::id()));
        fs::create_dir_all(&sockets)?;
        let results = thread::scope(|scope| {
            let nodes = boot.nodes.iter().enumerate().map(|(index, (name, cases))| {
                let sockets = &sockets;
                scope.spawn(move || self.run_node(boot, name, cases, index, sockets))
            });
            let nodes: Vec<_> = nodes.collect();
            nodes.into_iter().map(|node| node.join()).collect::<Vec<_>>()
        });
        fs::remove_dir_all(&sockets)?;
        let mut all = true;
        for result in results {
            all &= result.map_err(|_| anyhow!("a thread of a node has panicked"))??;
        }
        Ok(all)
    }

    fn run_node(&self, boot: &Boot, name: &str, cases: &[&str], index: usize, sockets: &Path) -> Result<bool> {
        let cases: Vec<String> = cases
            .iter()
            .map(|case| (*case).to_owned())
            .filter(|case| self.only.is_empty() || self.only.contains(case))
            .collect();
        let disks = Disks::in_folder(&self.folder, name);
        if !boot.same_disk {
            disks.copy_system(&self.system)?;
        }
        let own = self.folder.join(format!("{name}-plan"));
        let _ = fs::remove_dir_all(&own);
        fs::create_dir_all(&own)?;
        let plan: String = cases.iter().map(|case| format!("case {case}\n")).collect();
        fs::write(own.join("plan"), plan)?;
        if boot.reboots {
            fs::write(own.join("reboot"), "")?;
        }
        if let Some(duckdb) = self.duckdb.as_ref().filter(|_| boot.duckdb) {
            run(Command::new("cp").arg("-r").arg(duckdb).arg(own.join("duckdb")))?;
        }
        disks.put_test(&[&self.test, &own])?;
        let other = boot.nodes.get(1 - index.min(1)).map(|(other, _)| *other);
        let machine = Machine {
            kernel: &self.kernel.image,
            initramfs: None,
            // Without AppArmor, whose tools Docker would want. No two machines have one id.
            append: format!(
                "root=/dev/nvme0n1 rw apparmor=0 systemd.unit=node-test.target net.ifnames=0{} \
                 systemd.hostname={name} systemd.machine_id=0123456789abcdef0123456789abcde{index}",
                if other.is_some() { " node.card" } else { "" },
            ),
            memory_mib: MEMORY_MIB,
            disks: vec![&disks.system, &disks.test, &disks.out],
            network: other.map(|other| network(sockets, name, other, index)),
            acpi_table: None,
            counts_instructions: false,
        };
        let path = self.folder.join(format!("{name}.console"));
        // Written as it comes, so that one can look at a machine that hangs.
        let mut file = File::create(&path)?;
        let (begun, mut last) = (Instant::now(), Instant::now());
        let ended = machine::boot(&self.tools, &self.accelerator, &machine, self.limit, |line| {
            writeln!(file, "{line}")?;
            if let Some(words) = console::said(line) {
                println!("{name} {:6.1} s  {words}", last.elapsed().as_secs_f64());
                last = Instant::now();
            }
            Ok(())
        })?;
        let seconds = begun.elapsed().as_secs();
        if let Err(error) = disks.unpack_out(&self.folder.join(format!("{name}-out"))) {
            eprintln!("what {name} left cannot be read: {error:#}");
        }
        match console::judge(&ended.console, ended.end, &cases) {
            Ok(()) => {
                println!("{name}: {} cases ok in {seconds} s", cases.len());
                Ok(true)
            }
            Err(wrong) => {
                eprintln!("The end of the console, which is in {}:", path.display());
                let lines: Vec<&str> = ended.console.lines().collect();
                for line in &lines[lines.len().saturating_sub(TAIL)..] {
                    eprintln!("    {line}");
                }
                for reason in wrong {
                    eprintln!("{name}: FAILED {reason}");
                }
                Ok(false)
            }
        }
    }
}

/// A cable to the other node, and the last byte of the card's address.
fn network(sockets: &Path, own: &str, other: &str, index: usize) -> (String, u8) {
    let path = |name: &str| sockets.join(name).display().to_string();
    let backend = format!(
        "dgram,local.type=unix,local.path={},remote.type=unix,remote.path={}",
        path(own),
        path(other)
    );
    (backend, if index == 0 { 1 } else { 2 })
}

fn copy(from: &Path, folder: &Path) -> Result<()> {
    let name = from
        .file_name()
        .with_context(|| format!("{} has no name", from.display()))?;
    fs::copy(from, folder.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}
