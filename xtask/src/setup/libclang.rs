//! Where libclang is, and which headers it needs to be told about.
//!
//! bindgen loads libclang at build time to read RocksDB's C header. The bare library (Debian's `libclang1-14`) comes
//! without the headers that belong to a compiler (`stddef.h` and the like), so gcc's are named instead.
//! Invariant: the answer depends on the file system alone and is the same every time, because a changed value would
//! build everything behind it again.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::environment::BuildEnvironment;
use super::packages::gcc_include;

/// The directory that holds libclang: the user's `LIBCLANG_PATH`, or the first of the usual places.
pub fn find() -> Option<PathBuf> {
    let chosen = env::var_os("LIBCLANG_PATH").map(PathBuf::from);
    find_below(chosen.as_deref(), Path::new("/"))
}

/// Sets the two variables that bindgen and libclang read.
pub fn configure(environment: &mut BuildEnvironment) {
    let Some(directory) = find() else { return };
    if !has_builtin_headers(&directory)
        && let Some(include) = gcc_include()
    {
        environment.set_default("BINDGEN_EXTRA_CLANG_ARGS", format!("-I{include}"));
    }
    environment.set_default("LIBCLANG_PATH", directory);
}

fn find_below(chosen: Option<&Path>, root: &Path) -> Option<PathBuf> {
    if let Some(chosen) = chosen {
        // The variable may name the library itself.
        if chosen.is_file() {
            return chosen.parent().map(Path::to_path_buf);
        }
        if holds_libclang(chosen) {
            return Some(chosen.to_path_buf());
        }
    }
    usual_directories(root).into_iter().find(|directory| holds_libclang(directory))
}

fn usual_directories(root: &Path) -> Vec<PathBuf> {
    let library = root.join("usr/lib");
    let mut directories = vec![library.join(format!("{}-linux-gnu", env::consts::ARCH))];
    let mut versions: Vec<(u32, PathBuf)> = entries(&library)
        .filter_map(|(name, path)| Some((name.strip_prefix("llvm-")?.parse().ok()?, path.join("lib"))))
        .collect();
    versions.sort_by(|left, right| right.cmp(left));
    directories.extend(versions.into_iter().map(|(_, directory)| directory));
    directories.extend([root.join("usr/lib64"), library, root.join("usr/local/lib")]);
    directories
}

fn holds_libclang(directory: &Path) -> bool {
    entries(directory).any(|(name, _)| is_libclang(&name))
}

/// `libclang.so`, `libclang.so.14`, `libclang-14.so.1`; but not the C++ interface, `libclang-cpp.so.14`.
fn is_libclang(name: &str) -> bool {
    name.strip_prefix("libclang").is_some_and(|rest| {
        rest == ".so"
            || rest.starts_with(".so.")
            || (rest.starts_with('-') && !rest.starts_with("-cpp") && rest.contains(".so"))
    })
}

/// Whether `<directory>/clang/<version>/include/stddef.h` exists, which is where libclang itself looks.
fn has_builtin_headers(directory: &Path) -> bool {
    entries(&directory.join("clang")).any(|(_, version)| version.join("include/stddef.h").is_file())
}

/// Names and paths in a directory; none when it cannot be read.
fn entries(directory: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn machine_with(files: &[&str]) -> TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("files lie in directories")).expect("directory");
            fs::write(path, "").expect("file");
        }
        root
    }

    #[test]
    fn only_the_c_library_counts() {
        for name in ["libclang.so", "libclang.so.14", "libclang-14.so", "libclang-14.so.1"] {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclang.a", "libclangAST.a", "libLLVM.so"] {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn the_newest_of_several_versions_is_taken() {
        let machine = machine_with(&[
            "usr/lib/llvm-9/lib/libclang.so",
            "usr/lib/llvm-19/lib/libclang.so.1",
            "usr/lib/llvm-14/lib/libclang.so",
        ]);
        let found = find_below(None, machine.path()).expect("one is there");
        assert_eq!(found, machine.path().join("usr/lib/llvm-19/lib"));
    }

    #[test]
    fn a_choice_of_the_user_wins_as_a_file_or_a_directory_but_not_when_it_leads_nowhere() {
        let machine = machine_with(&["opt/clang/libclang.so.17", "usr/lib/libclang.so"]);
        let root = machine.path();
        let mine = root.join("opt/clang");
        assert_eq!(find_below(Some(&mine), root), Some(mine.clone()));
        assert_eq!(find_below(Some(&mine.join("libclang.so.17")), root), Some(mine));
        assert_eq!(find_below(Some(&root.join("opt/nothing")), root), Some(root.join("usr/lib")));
    }

    #[test]
    fn a_machine_without_libclang_is_told_apart() {
        let machine = machine_with(&["usr/lib/llvm-14/lib/libclang-cpp.so.14"]);
        assert_eq!(find_below(None, machine.path()), None);
    }

    #[test]
    fn headers_are_looked_for_where_libclang_does() {
        let machine = machine_with(&["with/clang/14.0.6/include/stddef.h", "without/clang/14.0.6/lib/x.a"]);
        assert!(has_builtin_headers(&machine.path().join("with")));
        assert!(!has_builtin_headers(&machine.path().join("without")));
    }
}
