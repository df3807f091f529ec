//! Trees of real files.

use super::*;

const SECOND_NS: u64 = 1_000_000_000;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn make(&self, path: &str, anon_bytes: Option<u64>) {
        let directory = directory_of(self.0.path(), path);
        fs::create_dir_all(&directory).unwrap();
        if let Some(bytes) = anon_bytes {
            let text = format!("anon {bytes}\nfile 0\nkernel 0\nsock 0\n");
            fs::write(directory.join("memory.stat"), text).unwrap();
        }
    }

    fn remove(&self, path: &str) {
        fs::remove_dir_all(directory_of(self.0.path(), path)).unwrap();
    }

    fn start(&self) -> TenantMemory {
        TenantMemory::start(&CgroupTree::at(self.0.path()))
    }
}

fn read(memory: &mut TenantMemory, ran: &[&str], at_s: u64) -> Vec<(String, u64)> {
    let ran: Vec<String> = ran.iter().map(|path| (*path).to_owned()).collect();
    let readings = memory.read(ran.iter(), at_s * SECOND_NS);
    readings
        .into_iter()
        .map(|(path, reading)| (path.to_string(), reading.bytes))
        .collect()
}

fn expected(readings: &[(&str, u64)]) -> Vec<(String, u64)> {
    readings
        .iter()
        .map(|(path, bytes)| ((*path).to_owned(), *bytes))
        .collect()
}

#[test]
fn each_page_that_is_charged_is_counted_once() {
    // A part of a real file of Linux 6.12.
    let text = "anon 4096\nfile 8192\nkernel 2048\nkernel_stack 512\npagetables 256\nsec_pagetables 0\npercpu 128\n\
                sock 16\nvmalloc 64\nshmem 1024\nzswap 0\nfile_mapped 4096\ninactive_file 8192\nslab 900\n\
                hugetlb 2097152\npgfault 77\n";
    assert_eq!(charged_bytes(text), Some(4096 + 8192 + 2048 + 16 + 2_097_152));
    // Linux 5.10 has no sum of what the kernel holds.
    let older = "anon 4096\nfile 8192\nkernel_stack 512\npercpu 128\nsock 16\nshmem 1024\nslab 900\n";
    assert_eq!(charged_bytes(older), Some(4096 + 8192 + 512 + 128 + 900 + 16));
    // What is not such a file says nothing: missing is not zero.
    for other in ["", "anon 4096\n", "cache 1\nrss 2\n", "anon x\nfile 1\n"] {
        assert_eq!(charged_bytes(other), None, "{other}");
    }
    let most = format!("anon {0}\nfile {0}\n", u64::MAX);
    assert_eq!(charged_bytes(&most), Some(u64::MAX));
}

#[test]
fn a_tenant_is_read_at_its_highest_directory_also_if_it_sleeps() {
    let tree = Tree::new();
    tree.make("/", Some(999));
    tree.make("/system.slice", Some(100));
    tree.make("/system.slice/web.service", Some(70));
    tree.make("/system.slice/web.service/workers", Some(30));
    let mut memory = tree.start();
    let all = expected(&[("/system.slice", 100), ("/system.slice/web.service", 70)]);
    assert_eq!(read(&mut memory, &[], 1), all);
    assert!(memory.covers("/system.slice/web.service/workers") && memory.covers("/system.slice/x"));
    assert!(!memory.covers("/") && !memory.covers("/system.slicer"));
    // One that comes later is found when it runs.
    tree.make("/batch.slice/a.scope/inner", Some(5));
    tree.make("/batch.slice/a.scope", Some(6));
    assert_eq!(read(&mut memory, &["/"], 2), all);
    let more = read(&mut memory, &["/batch.slice/a.scope/inner"], 3);
    assert_eq!(more[0], ("/batch.slice/a.scope".to_owned(), 6));
    assert_eq!(more[1..], all);
}

#[test]
fn what_runs_is_read_more_often_than_what_sleeps() {
    let tree = Tree::new();
    tree.make("/a.service", Some(1));
    tree.make("/b.service", Some(1));
    let mut memory = tree.start();
    let mut a_changed = Vec::new();
    let mut b_changed = Vec::new();
    let mut before = read(&mut memory, &["/a.service"], 1);
    for at_s in 2..70 {
        tree.make("/a.service", Some(at_s));
        tree.make("/b.service", Some(at_s));
        let now = read(&mut memory, &["/a.service"], at_s);
        for (changed, (now, before)) in [&mut a_changed, &mut b_changed]
            .into_iter()
            .zip(now.iter().zip(&before))
        {
            if now != before {
                changed.push(at_s);
            }
        }
        before = now;
    }
    assert_eq!(a_changed, [3, 7, 15, 25, 35, 45, 55, 65]);
    assert_eq!(b_changed, [31, 61]);
}

#[test]
fn what_is_gone_has_no_memory() {
    let tree = Tree::new();
    tree.make("/a.service", Some(1));
    tree.make("/b.service", Some(2));
    let mut memory = tree.start();
    let both = expected(&[("/a.service", 1), ("/b.service", 2)]);
    assert_eq!(read(&mut memory, &["/a.service"], 1), both);
    tree.remove("/a.service");
    tree.remove("/b.service");
    // It ran a moment ago; the other is seen to be gone when it is read again.
    assert_eq!(read(&mut memory, &[], 2), both[1..]);
    assert_eq!(read(&mut memory, &[], 40), []);
    // Made again, it is another one under the same name.
    tree.make("/a.service", Some(3));
    assert_eq!(read(&mut memory, &["/a.service"], 41), expected(&[("/a.service", 3)]));
}

#[test]
fn without_the_controller_nothing_is_known() {
    let tree = Tree::new();
    tree.make("/a.service", None);
    let mut memory = tree.start();
    assert_eq!(read(&mut memory, &["/a.service"], 1), []);
    assert!(!memory.covers("/a.service"));
    // It can be enabled later.
    tree.make("/a.service", Some(4));
    assert_eq!(read(&mut memory, &["/a.service"], 20), expected(&[("/a.service", 4)]));
}

#[test]
fn an_interval_reads_a_bounded_number_of_files() {
    let tree = Tree::new();
    let count = MOST_READINGS * 2 + 7;
    for number in 0..count {
        tree.make(&format!("/t{number}.service"), Some(1));
    }
    let mut memory = tree.start();
    for expected in [MOST_READINGS, 2 * MOST_READINGS, count, count] {
        assert_eq!(read(&mut memory, &[], 1).len(), expected);
    }
}
