//! What every command that reads a log says about a fixed set of recorded folders, byte for byte.
//!
//! `tests/recorded` has a folder for each. Its `says` holds what the commands print and write. After a change of words
//! that is meant, `DLPM_RENEW_RECORDED=1 cargo xtask test recorded` writes these files again; their diff is reviewed.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use dlpm_tests::{command::Dlpm, require_program};
use sha2::{Digest, Sha256};

/// Says that the files are to be written again.
const RENEW: &str = "DLPM_RENEW_RECORDED";

/// Where the expected output of a folder is, below it.
const SAYS: &str = "says";

/// What is asked of every folder: the file that holds the answer, and the arguments. `LOG` is the folder.
const OF_EACH: [(&str, &str); 5] = [
    ("verify.txt", "verify LOG"),
    ("list.txt", "report --list LOG"),
    ("report.txt", "report LOG"),
    ("report.json", "report LOG --format json"),
    ("report.csv", "report LOG --format csv"),
];

/// What is asked of some folders as well. Files that a command writes go to the folder `OUT`.
const MORE: [(&str, &str, &str); 20] = [
    ("aipowermeter", "processes.csv", "report LOG --by process --format csv"),
    ("aipowermeter", "html.txt", "report LOG --html OUT/page.html"),
    (
        "aipowermeter",
        "plot.txt",
        "plot LOG --metric intel_power,rel_intel_power:9 --output OUT/plot.svg",
    ),
    (
        "aliases",
        "convert.txt",
        "convert LOG --output OUT/converted --naive-dates --no-aliases",
    ),
    (
        "damaged",
        "convert.txt",
        "convert LOG --output OUT/converted --strip-exact",
    ),
    (
        "events",
        "convert.txt",
        "convert LOG --output OUT/converted --strip-exact --split",
    ),
    (
        "events",
        "no-marker.txt",
        "convert LOG --output OUT/no-marker --no-marker",
    ),
    (
        "events",
        "plot.txt",
        "plot LOG --metric zone:package-0,psys_power --output OUT/plot.svg",
    ),
    ("events", "window.txt", "report LOG --from +2s --to +6s"),
    ("gpus", "cgroups.csv", "report LOG --by cgroup --format csv"),
    ("gpus", "comms.csv", "report LOG --by comm --format csv"),
    ("gpus", "gpus.csv", "report LOG --by gpu --format csv"),
    ("gpus", "phases.csv", "report LOG --by phase --format csv"),
    ("gpus", "processes.csv", "report LOG --by process --format csv"),
    ("gpus", "html.txt", "report LOG --html OUT/page.html"),
    (
        "gpus",
        "plot.txt",
        "plot LOG --metric intel_power,nvidia_power --output OUT/plot.svg",
    ),
    ("gpus", "reach.txt", "report LOG --reach accuracy=0.7"),
    (
        "phases",
        "inference.txt",
        "report LOG --inferences 100 --carbon 50 --pue 1.2",
    ),
    ("phases", "phase.txt", "report LOG --phase a"),
    (
        "phases",
        "plot.txt",
        "plot LOG --metric zone:package-0,process:1 --phase a --output OUT/plot.svg",
    ),
];

#[test]
fn recorded_folders_say_what_they_said_before() {
    require_program!();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded");
    let mut folders: Vec<PathBuf> = fs::read_dir(&recorded)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 10);
    let mut differ = Vec::new();
    for folder in folders {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let said = said(name, &folder);
        let says = folder.join(SAYS);
        if env::var_os(RENEW).is_some() {
            let _ = fs::remove_dir_all(&says);
            for (file, contents) in &said {
                let path = says.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, contents).unwrap();
            }
            continue;
        }
        let mut expected = BTreeMap::new();
        files(&says, "", &mut expected);
        let changed = |file: &&String| said.get(*file) != expected.get(*file);
        let mut changed: Vec<&String> = said.keys().chain(expected.keys()).filter(changed).collect();
        changed.dedup();
        for file in changed {
            differ.push(format!(
                "{name}/{SAYS}/{file}:\n{}",
                first_difference(expected.get(file), said.get(file))
            ));
        }
    }
    assert!(
        differ.is_empty(),
        "{}\n\nIf that is meant, run this test with {RENEW}=1, and look at the diff.",
        differ.join("\n")
    );
}

/// What the commands say about a folder: contents by the name of the file.
fn said(name: &str, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let place = tempfile::tempdir().unwrap();
    let (log, out) = (place.path().join("log"), place.path().join("out"));
    fs::create_dir(&log).unwrap();
    fs::create_dir(&out).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, log.join(path.file_name().unwrap())).unwrap();
        }
    }
    let more = MORE
        .iter()
        .filter(|(of, ..)| *of == name)
        .map(|(_, file, words)| (*file, *words));
    let mut said = BTreeMap::new();
    for (file, words) in OF_EACH.into_iter().chain(more) {
        let words = words.split(' ').map(|word| match word {
            "LOG" => "log".to_owned(),
            word => word.replace("OUT", "out"),
        });
        let output = Dlpm::new(words).variable("TZ", "CET-1").inside(place.path()).run();
        let mut text = output.stdout;
        if !output.status.success() || !output.stderr.is_empty() {
            text += &format!("{}\n{}", output.status, output.stderr);
        }
        said.insert(file.to_owned(), text.into_bytes());
    }
    files(&out, "", &mut said);
    for (_, page) in said.iter_mut().filter(|(file, _)| file.ends_with(".html")) {
        *page = without_data(std::mem::take(page));
    }
    said
}

/// A page with digests in the place of its scripts, which hold the figures of every interval, and without the version.
fn without_data(page: Vec<u8>) -> Vec<u8> {
    let page = String::from_utf8(page).unwrap();
    let page = page.replace(concat!("dlpm ", env!("CARGO_PKG_VERSION")), "dlpm VERSION");
    let mut parts = page.split("<script");
    let mut short = parts.next().unwrap().to_owned();
    for part in parts {
        let (script, rest) = part.split_once("</script>").unwrap();
        let digest: String = Sha256::digest(script)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        short += &format!("<script>{} bytes, SHA-256 {digest}</script>{rest}", script.len());
    }
    short.into_bytes()
}

/// Adds the files below a folder.
fn files(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            files(&path, &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
}

/// The first line in which two texts differ.
fn first_difference(expected: Option<&Vec<u8>>, found: Option<&Vec<u8>>) -> String {
    let text = |bytes: Option<&Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let (Some(expected), Some(found)) = (text(expected), text(found)) else {
        let what = if found.is_some() {
            "is new"
        } else {
            "is not written any more"
        };
        return format!("  the file {what}");
    };
    let (mut expected, mut found) = (expected.lines(), found.lines());
    for number in 1.. {
        let pair = (expected.next(), found.next());
        if pair.0 != pair.1 {
            let shown = |line: Option<&str>| line.unwrap_or("(end)").chars().take(300).collect::<String>();
            return format!("  line {number}\n  - {}\n  + {}", shown(pair.0), shown(pair.1));
        }
        if pair.0.is_none() {
            break;
        }
    }
    "  the ends of their lines differ".to_owned()
}
