//! References of shared files: a table of their lives, and random histories against a storage with its files.

#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use thalweg_common::id::SubtaskId;

use super::*;

fn file(checkpoint: CheckpointId, name: &str) -> SharedFile {
    let path = SharedFile::path(1, checkpoint, SubtaskId { vertex: 0, index: 0 }, name);
    SharedFile { path, size_bytes: 1, checksum: 2 }
}

fn paths(files: &[SharedFile]) -> BTreeSet<String> {
    files.iter().map(|file| file.path.clone()).collect()
}

#[test]
fn a_file_lives_as_long_as_a_checkpoint_names_it() {
    let mut shared = SharedFiles::default();
    let (a, b, c) = (file(1, "a"), file(1, "b"), file(2, "c"));
    shared.announce(1, [&a, &b].into_iter()).unwrap();
    shared.completed(1, &[]);
    assert_eq!(shared.condemn(), [""; 0]);
    shared.announce(2, [&b, &c].into_iter()).unwrap();
    assert_eq!(shared.condemn(), [""; 0], "checkpoint 1 is still in the log");
    shared.completed(2, &[1]);
    assert_eq!(shared.condemn(), std::slice::from_ref(&a.path));
    assert_eq!(shared.condemn(), [""; 0], "once");
    let refused = shared.announce(3, [&a].into_iter()).unwrap_err();
    assert!(refused.to_string().contains(&a.path), "{refused}");
    shared.deleted(std::slice::from_ref(&a.path), false);
    assert!(shared.announce(3, [&a].into_iter()).is_err(), "it may be gone all the same");
    assert_eq!(shared.condemn(), std::slice::from_ref(&a.path), "tried again");
    shared.deleted(std::slice::from_ref(&a.path), true);
    assert!(shared.announce(3, [&a].into_iter()).is_ok(), "whether it is there is seen when it is verified");
}

#[test]
fn what_an_aborted_checkpoint_uploaded_goes_and_what_it_shared_stays() {
    let mut shared = SharedFiles::default();
    let (kept, orphan, late) = (file(1, "kept"), file(2, "orphan"), file(2, "late"));
    shared.announce(1, [&kept].into_iter()).unwrap();
    shared.completed(1, &[]);
    shared.announce(2, [&kept, &orphan].into_iter()).unwrap();
    shared.aborted(2);
    shared.late([&late].into_iter());
    assert_eq!(shared.condemn(), [late.path, orphan.path]);
    assert!(shared.is_retained(&kept.path));
}

#[test]
fn a_new_leader_deletes_nothing_before_it_knows_every_retained_checkpoint() {
    let (needed, orphan, young) = (file(1, "needed"), file(2, "orphan"), file(4, "young"));
    let foreign = "shared/of-somebody-else".to_string();
    let mut shared = SharedFiles::of([1, 3].into_iter());
    let listing = [&needed, &orphan, &young].map(|file| file.path.clone()).into_iter().chain([foreign]);
    shared.found(listing, 3);
    assert_eq!(shared.unknown().collect::<Vec<_>>(), [1, 3]);
    shared.known(3, BTreeSet::new());
    assert_eq!(shared.condemn(), [""; 0], "checkpoint 1 may need anything");
    shared.known(1, paths(std::slice::from_ref(&needed)));
    assert_eq!(shared.condemn(), [orphan.path]);

    let mut unreadable = SharedFiles::of([1].into_iter());
    unreadable.late([&needed].into_iter());
    assert_eq!(unreadable.condemn(), [""; 0]);
    unreadable.completed(5, &[1]);
    assert_eq!(unreadable.condemn(), [needed.path], "it has been replaced");
}

/// What happens to a job, its leaders and its tasks.
#[derive(Debug, Clone)]
enum Happening {
    Begin,
    /// A task uploads this many files, names some of those that it knows, chosen by the bits, and acknowledges.
    Acknowledge {
        uploads: u8,
        reuse: u16,
    },
    /// A task uploads a file and dies before it says so.
    UploadInSilence,
    Complete,
    Abort,
    /// What is to be deleted is deleted, or cannot be.
    Delete {
        works: bool,
    },
    NewLeader,
    /// The metadata of a retained checkpoint is read.
    Read,
    Sweep,
    /// The task hears of the newest completed checkpoint.
    Hear,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => Just(Happening::Begin),
        8 => (0u8..4, any::<u16>()).prop_map(|(uploads, reuse)| Happening::Acknowledge { uploads, reuse }),
        1 => Just(Happening::UploadInSilence),
        5 => Just(Happening::Complete),
        2 => Just(Happening::Abort),
        4 => any::<bool>().prop_map(|works| Happening::Delete { works }),
        1 => Just(Happening::NewLeader),
        2 => Just(Happening::Read),
        1 => Just(Happening::Sweep),
        3 => Just(Happening::Hear),
    ]
}

/// A job with its storage and its log, and the leader's registry.
struct World {
    keeps: usize,
    shared: SharedFiles,
    storage: BTreeSet<String>,
    /// The retained checkpoints in the log, with what their metadata names.
    log: Vec<(CheckpointId, BTreeSet<String>)>,
    last_id: CheckpointId,
    /// In progress: with the files that were acknowledged.
    pending: BTreeMap<CheckpointId, BTreeSet<String>>,
    deleting: Vec<String>,
    /// What the task may name again; it may be out of date.
    known_to_task: BTreeSet<String>,
    uploads: u64,
}

impl World {
    fn new(keeps: usize) -> Self {
        Self {
            keeps,
            shared: SharedFiles::default(),
            storage: BTreeSet::new(),
            log: vec![],
            last_id: 0,
            pending: BTreeMap::new(),
            deleting: vec![],
            known_to_task: BTreeSet::new(),
            uploads: 0,
        }
    }

    fn upload(&mut self, checkpoint: CheckpointId) -> SharedFile {
        self.uploads += 1;
        let file = file(checkpoint, &self.uploads.to_string());
        self.storage.insert(file.path.clone());
        file
    }

    fn newest_pending(&self) -> Option<CheckpointId> {
        self.pending.keys().next_back().copied()
    }

    fn abort(&mut self, id: CheckpointId) {
        self.pending.remove(&id);
        self.shared.aborted(id);
    }

    fn complete(&mut self, id: CheckpointId) {
        let files = self.pending.remove(&id).unwrap();
        // Verification: every file that is not known to be retained must be there.
        if files.iter().any(|path| !self.shared.is_retained(path) && !self.storage.contains(path)) {
            self.shared.aborted(id);
            return;
        }
        self.log.push((id, files));
        let drop = self.log.len().saturating_sub(self.keeps);
        let dropped: Vec<_> = self.log.drain(..drop).map(|(id, _)| id).collect();
        self.shared.completed(id, &dropped);
        let older: Vec<_> = self.pending.range(..id).map(|(id, _)| *id).collect();
        older.into_iter().for_each(|id| self.abort(id));
        self.deleting.extend(self.shared.condemn());
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Begin if self.pending.len() < 3 => {
                self.last_id += 1;
                self.pending.insert(self.last_id, BTreeSet::new());
            }
            Happening::Begin => {}
            Happening::Acknowledge { uploads, reuse } => {
                let Some(id) = self.newest_pending() else { return };
                let mut files: Vec<_> = (0..*uploads).map(|_| self.upload(id)).collect();
                let again =
                    self.known_to_task.iter().enumerate().filter(|(at, _)| reuse >> (at % 16) & 1 == 1);
                files.extend(again.map(|(_, path)| SharedFile {
                    path: path.clone(),
                    size_bytes: 1,
                    checksum: 2,
                }));
                match self.shared.announce(id, files.iter()) {
                    Ok(()) => self.pending.get_mut(&id).unwrap().extend(paths(&files)),
                    Err(_) => {
                        self.abort(id);
                        self.shared.late(files.iter());
                    }
                }
            }
            Happening::UploadInSilence => {
                let id = self.last_id;
                self.upload(id);
            }
            Happening::Complete => {
                if let Some(id) = self.newest_pending() {
                    self.complete(id);
                }
            }
            Happening::Abort => {
                if let Some(id) = self.newest_pending() {
                    self.abort(id);
                }
            }
            Happening::Delete { works } => {
                let paths = std::mem::take(&mut self.deleting);
                if *works {
                    self.storage.retain(|path| !paths.contains(path));
                }
                self.shared.deleted(&paths, *works);
            }
            Happening::NewLeader => {
                self.pending.clear();
                self.deleting.clear();
                self.shared = SharedFiles::of(self.log.iter().map(|(id, _)| *id));
            }
            Happening::Read => {
                let unknown = self.shared.unknown().next();
                if let Some((id, files)) = self.log.iter().find(|(id, _)| Some(*id) == unknown) {
                    self.shared.known(*id, files.clone());
                }
            }
            Happening::Sweep => {
                if let Some((newest, _)) = self.log.last() {
                    self.shared.found(self.storage.clone().into_iter(), *newest);
                    self.deleting.extend(self.shared.condemn());
                }
            }
            Happening::Hear => {
                self.known_to_task = self.log.last().map(|(_, files)| files.clone()).unwrap_or_default();
            }
        }
    }

    fn needed(&self) -> BTreeSet<String> {
        self.log.iter().flat_map(|(_, files)| files.clone()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is shared, aborted, replaced and taken over: what a retained checkpoint needs is there, and in the end
    /// nothing else is.
    #[test]
    fn no_needed_file_is_deleted_and_nothing_else_remains(
        keeps in 1usize..4,
        happenings in proptest::collection::vec(any_happening(), 0..150),
    ) {
        let mut world = World::new(keeps);
        for happening in &happenings {
            world.happen(happening);
            prop_assert!(world.needed().is_subset(&world.storage), "after {happening:?}");
        }
        for id in world.pending.clone().into_keys() {
            world.abort(id);
        }
        while world.shared.unknown().next().is_some() {
            world.happen(&Happening::Read);
        }
        world.happen(&Happening::Begin);
        world.happen(&Happening::Acknowledge { uploads: 2, reuse: 0 });
        world.happen(&Happening::Complete);
        for works in [false, true] {
            world.happen(&Happening::Sweep);
            world.happen(&Happening::Delete { works });
        }
        prop_assert_eq!(world.needed(), world.storage);
    }
}
