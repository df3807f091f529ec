//! Exact CPU time on the real kernel.
use dlpm::sources::cpu_time::{Config, CpuTime};

#[test]
fn time_law() {
    let mut cpu_time = CpuTime::start(&Config::default()).unwrap();
    for hook in cpu_time.hooks() {
        println!("{hook:?}");
    }
    println!("{:?}", cpu_time.identity());
    let sealed = cpu_time.seal().unwrap();
    let _ = cpu_time.drain(&sealed).unwrap();
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let sealed = cpu_time.seal().unwrap();
        let drained = cpu_time.drain(&sealed).unwrap();
        println!("{} {} records {}", sealed.sequence, sealed.seal_ns, drained.usage.len());
        for cpu in drained.cpus {
            assert!(cpu.time_law_holds(), "{cpu:?}");
            println!("{cpu:?}");
        }
    }
}
