//! What becomes of a store on disk when files are damaged or gone, and when the disk is full or cannot be written: errors that name
//! cause and cure, never a wrong value.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::function::{Function, MAX_PARALLELISM, Single};
use crate::subtask::{Subtask, create, options, wanted};
use thalweg_common::clock::SystemClock;
use thalweg_common::failure::{Failure, Fault};
use thalweg_common::key_group::KeyGroupRange;
use thalweg_state::{Drained, RestoreError, RocksDb, SelectError, StoreError, StoreFiles};

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: MAX_PARALLELISM };

fn restore(directory: PathBuf, files: &StoreFiles) -> Result<RocksDb, RestoreError> {
    let options = options::<Single>(directory, &SystemClock::shared());
    RocksDb::restore(&options, &wanted::<Single>(ALL), std::slice::from_ref(files))
}

/// The checkpoint of a store with a few thousand keys.
fn checkpoint(directory: &Path) -> StoreFiles {
    let mut subtask = Subtask::<Single>::rocksdb(ALL, create::<Single>(directory.join("store")), 1 << 20);
    for key in 0..5_000 {
        subtask.function.count.set(&mut subtask.store.select(key).unwrap(), u64::from(key));
    }
    subtask.epochs.extend(subtask.store.freeze(1).unwrap());
    let target = directory.join("checkpoint");
    subtask.finish(move |epoch| Some(epoch.finish(&target).unwrap())).unwrap()
}

#[test]
fn damaged_and_missing_files_are_errors_that_name_cause_and_cure() {
    let directory = tempfile::tempdir().unwrap();
    let files = checkpoint(directory.path());
    let sst = files.files.iter().find(|file| file.is_shared && file.size_bytes > 10_000).unwrap();
    let bytes = std::fs::read(&sst.path).unwrap();
    let restore = |name: &str| restore(directory.path().join(name), &files).err().unwrap().to_string();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    for (name, damaged) in [("flipped", flipped), ("truncated", bytes[..bytes.len() - 9].to_vec())] {
        // Another file in its place, so that the store's own one stays as it is.
        std::fs::remove_file(&sst.path).unwrap();
        std::fs::write(&sst.path, damaged).unwrap();
        let message = restore(name);
        assert!(message.contains("the file is damaged") && message.contains(&sst.name), "{message}");
        assert!(message.contains("restore from another checkpoint"), "{message}");
    }
    std::fs::remove_file(&sst.path).unwrap();
    let message = restore("missing");
    assert!(message.contains(&sst.name) && message.contains("a file is missing"), "{message}");
}

#[test]
fn a_file_that_is_damaged_while_it_is_in_use_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let files = checkpoint(directory.path());
    let target = directory.path().join("restored");
    let backend = restore(target.clone(), &files).unwrap();
    for entry in std::fs::read_dir(&target).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let bytes = std::fs::read(&path).unwrap();
            let flipped =
                bytes.iter().enumerate().map(|(at, byte)| if at < bytes.len() / 2 { !byte } else { *byte });
            std::fs::write(&path, flipped.collect::<Vec<u8>>()).unwrap();
        }
    }
    let mut subtask = Subtask::<Single>::rocksdb(ALL, backend, 1 << 20);
    let error = (0..5_000).find_map(|key| subtask.store.select(key).err()).unwrap();
    let message = error.to_string();
    assert!(
        message.contains("cannot read state `count` of `function`") && message.contains("a file is damaged"),
        "{message}"
    );
}

#[test]
fn a_store_in_a_directory_that_cannot_be_made_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let message = RocksDb::create(&options::<Single>(file.join("store"), &SystemClock::shared()));
    let message = message.err().unwrap().to_string();
    assert!(
        message.contains("cannot create the state of `function`") && message.contains("file/store"),
        "{message}"
    );
}

#[test]
fn an_epoch_that_is_dropped_makes_its_store_fail() {
    let directory = tempfile::tempdir().unwrap();
    let backend = create::<Single>(directory.path().join("store"));
    let mut subtask = Subtask::<Single>::rocksdb(ALL, backend, 1 << 20);
    subtask.function.count.set(&mut subtask.store.select(1).unwrap(), 1);
    drop(subtask.store.freeze(3).unwrap());
    let message = subtask.store.drain(1).unwrap_err().to_string();
    assert!(message.contains("the changes before checkpoint 3 were dropped unwritten"), "{message}");
    let error = subtask.store.select(2).err().unwrap();
    assert!(matches!(error, SelectError::Store(error) if matches!(*error, StoreError::Incomplete { .. })));
}

#[test]
fn a_cache_stays_within_its_budget() {
    let directory = tempfile::tempdir().unwrap();
    let backend = create::<Function>(directory.path().join("store"));
    let budget = 64 << 10;
    let mut subtask = Subtask::<Function>::rocksdb(ALL, backend, budget);
    for key in 0..20_000 {
        let mut at = subtask.store.select(key).unwrap();
        subtask.function.word.set(&mut at, format!("word {key}"));
        subtask.function.seen.insert(&mut at, 1, 1);
        assert!(subtask.store.cache_bytes() < budget + budget / 8, "{}", subtask.store.cache_bytes());
    }
    assert_eq!(subtask.store.keys().unwrap().len(), 20_000);
}

#[test]
fn a_checkpoint_without_changes_has_the_same_shared_files() {
    let directory = tempfile::tempdir().unwrap();
    let backend = create::<Single>(directory.path().join("store"));
    let mut subtask = Subtask::<Single>::rocksdb(ALL, backend, 1 << 20);
    let mut take = |keys: u16| {
        for key in 0..keys {
            subtask.function.count.set(&mut subtask.store.select(key).unwrap(), 1);
        }
        subtask.epochs.extend(subtask.store.freeze(1).unwrap());
        let target = directory.path().join(format!("checkpoint-{keys}"));
        let files = subtask.finish(move |epoch| Some(epoch.finish(&target).unwrap())).unwrap();
        assert_eq!(subtask.store.drain(1).unwrap(), Drained::All);
        files
            .files
            .into_iter()
            .filter(|file| file.is_shared)
            .map(|file| (file.name, file.checksum))
            .collect::<Vec<_>>()
    };
    let first = take(100);
    assert_eq!(take(0), first);
    assert!(take(1).starts_with(&first));
}

#[test]
fn every_file_of_a_checkpoint_that_is_cut_short_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let files = checkpoint(directory.path());
    let is_there = |prefix: &str| files.files.iter().any(|file| file.name.starts_with(prefix));
    assert!(is_there("MANIFEST") && is_there("CURRENT") && is_there("OPTIONS"));
    for file in &files.files {
        let bytes = std::fs::read(&file.path).unwrap();
        for kept in [0, bytes.len() / 2, bytes.len() - 1] {
            std::fs::remove_file(&file.path).unwrap();
            std::fs::write(&file.path, &bytes[..kept]).unwrap();
            let error =
                restore(directory.path().join(format!("{}-{kept}", file.name)), &files).err().unwrap();
            let message = error.to_string();
            assert!(message.contains(&file.name) && message.contains("the file is damaged"), "{message}");
            assert!(message.contains("restore from another checkpoint"), "{message}");
            let Failure { fault, retryable, .. } = Failure::from(error);
            assert_eq!((fault, retryable), (Fault::External, true));
        }
        std::fs::write(&file.path, bytes).unwrap();
    }
    restore(directory.path().join("whole"), &files).unwrap();
}

#[test]
fn a_file_that_is_gone_from_a_store_makes_its_checkpoint_fail() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let mut subtask = Subtask::<Single>::rocksdb(ALL, create::<Single>(store.clone()), 1 << 20);
    let mut take = |checkpoint: u64| {
        subtask.function.count.set(&mut subtask.store.select(1).unwrap(), checkpoint);
        subtask.epochs.extend(subtask.store.freeze(checkpoint).unwrap());
        let target = directory.path().join(format!("chk-{checkpoint}"));
        subtask.try_finish(move |epoch| epoch.finish(&target))
    };
    take(1).unwrap();
    for path in files_of(&store).into_iter().filter(|path| path.extension().is_some_and(|end| end == "sst")) {
        std::fs::remove_file(path).unwrap();
    }
    let message = take(2).unwrap_err().to_string();
    assert!(message.contains("cannot checkpoint the state of `function`"), "{message}");
    assert!(message.contains(".sst") && message.contains("a file is missing"), "{message}");
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

// ---- Disks ---------------------------------------------------------------------------------------------------------

/// A disk of its own.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    /// Of this size, in memory.
    fn small(kilobytes: u32) -> Option<Self> {
        let disk = Self { directory: tempfile::tempdir().unwrap() };
        let size = format!("size={kilobytes}k");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.path()))
            .then_some(disk)
    }

    /// One that its system sets to read-only when it meets an error.
    fn that_may_fail(image: &Path) -> Option<Self> {
        let disk = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::File::create(image).unwrap().set_len(32 << 20).unwrap();
        let is_mounted = run(Command::new("mkfs.ext4").arg("-q").arg(image))
            && run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(image).arg(disk.path()));
        is_mounted.then_some(disk)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Meets an error.
    fn fail(&self) {
        let device = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(self.path()).output().unwrap();
        let device = String::from_utf8(device.stdout).unwrap();
        let device = Path::new(device.trim()).file_name().unwrap().to_owned();
        std::fs::write(Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error"), "1").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

/// Whether a program ran without an error.
fn run(command: &mut Command) -> bool {
    let output = command.output();
    let is_done = output.as_ref().is_ok_and(|output| output.status.success());
    if !is_done {
        println!("skipped, or not undone: {command:?} says {output:?}; it wants root and mkfs.ext4");
    }
    is_done
}

/// A text that takes 160 bytes however it is compressed.
fn noise(key: u16) -> String {
    let hash = |at: u64| ((u64::from(key) << 8) | at).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    (0..20).map(|at| format!("{:016x}", hash(at).wrapping_mul(0xbf58_476d_1ce4_e5b9))).collect()
}

/// Writes into a cache that is too small until the store fails; whatever can be read meanwhile and afterwards is right.
fn write_until_it_fails(subtask: &mut Subtask<Function>) -> StoreError {
    for key in 0..u16::MAX {
        match subtask.store.select(key) {
            Ok(mut at) => subtask.function.word.set(&mut at, noise(key)),
            Err(SelectError::Store(error)) => {
                for earlier in 0..key {
                    if let Ok(at) = subtask.store.select(earlier) {
                        assert_eq!(subtask.function.word.get(&at), Some(&noise(earlier)));
                    }
                }
                return *error;
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the disk has room for everything");
}

#[test]
fn a_full_disk_is_an_error_that_says_so_where_rows_leave_the_cache() {
    let Some(disk) = Disk::small(3_000) else { return };
    let mut options = options::<Function>(disk.path().join("store"), &SystemClock::shared());
    // Small write buffers, which are flushed soon.
    options.settings.predefined = thalweg_state::PredefinedOptions::LowMemory;
    let mut subtask = Subtask::<Function>::rocksdb(ALL, RocksDb::create(&options).unwrap(), 64 << 10);
    let error = write_until_it_fails(&mut subtask);
    let message = error.to_string();
    assert!(message.contains("No space left on device"), "{message}");
    assert!(message.contains("of `function` in") && message.contains("free space on this disk"), "{message}");
    let message = subtask.store.select(1).err().unwrap().to_string();
    assert!(message.contains("is not complete any more") && message.contains("No space left"), "{message}");
}

#[test]
fn a_full_disk_is_an_error_that_says_so_where_an_epoch_is_written() {
    let Some(disk) = Disk::small(1_500) else { return };
    let mut subtask =
        Subtask::<Function>::rocksdb(ALL, create::<Function>(disk.path().join("store")), 64 << 20);
    for key in 0..20_000 {
        subtask.function.word.set(&mut subtask.store.select(key).unwrap(), noise(key));
    }
    subtask.epochs.extend(subtask.store.freeze(1).unwrap());
    let target = disk.path().join("chk-1");
    let message = subtask.try_finish(move |epoch| epoch.finish(&target)).unwrap_err().to_string();
    assert!(message.contains("cannot write state `last-word` of `function`"), "{message}");
    assert!(message.contains("No space left") && message.contains("free space on this disk"), "{message}");
    let message = subtask.store.drain(1).unwrap_err().to_string();
    assert!(message.contains("is not complete any more") && message.contains("No space left"), "{message}");
}

#[test]
fn a_disk_that_became_read_only_is_an_error_that_says_so() {
    let images = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::that_may_fail(&images.path().join("image")) else { return };
    let mut subtask =
        Subtask::<Function>::rocksdb(ALL, create::<Function>(disk.path().join("store")), 1 << 20);
    let mut take = |checkpoint: u64| {
        let count = &subtask.function.count;
        count.set(&mut subtask.store.select(1).unwrap(), checkpoint);
        subtask.epochs.extend(subtask.store.freeze(checkpoint).unwrap());
        let target = disk.path().join(format!("chk-{checkpoint}"));
        subtask.try_finish(move |epoch| epoch.finish(&target))
    };
    take(1).unwrap();
    disk.fail();
    let error = take(2).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("Read-only file system") && message.contains("make the disk writable"),
        "{message}"
    );
    assert!(Failure::from(error).retryable, "it starts again elsewhere, or when the disk is well");
    let message = RocksDb::create(&options::<Single>(disk.path().join("other"), &SystemClock::shared()));
    let message = message.err().unwrap().to_string();
    assert!(message.contains("cannot create") && message.contains("make the disk writable"), "{message}");
    drop(subtask);
}
