//! Programs that tests start beside dlpm: `dlpm-worker` and `dlpm-tenant`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Names the folder with these programs, where they are not where cargo put them.
pub const HELPERS_VARIABLE: &str = "DLPM_TEST_PROGRAMS";

/// The path of the program that cargo built at `built`.
pub fn path(built: &str) -> PathBuf {
    find(Path::new(built), env::var_os(HELPERS_VARIABLE))
}

fn find(built: &Path, folder: Option<OsString>) -> PathBuf {
    match (folder, built.file_name()) {
        (Some(folder), Some(name)) => Path::new(&folder).join(name),
        _ => built.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_stands_for_the_place_where_cargo_built() {
        let built = Path::new("/tmp/clone/target/debug/dlpm-worker");
        assert_eq!(find(built, None), built);
        assert_eq!(find(built, Some("/bin".into())), Path::new("/bin/dlpm-worker"));
    }
}
