//! Parts on S3: uploads whose pieces travel while the task goes on, and what is too short for a piece as an object of its own at each
//! checkpoint.
//!
//! Invariants: what a checkpoint tells of a part is in the store before the checkpoint is; nobody sees a part before it is committed; bytes
//! under way are limited, and the task reads nothing while there are too many.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use thalweg_common::failure::Failure;
use thalweg_common::id::{CheckpointId, JobId};
use thalweg_common::limits::FILE_SINK_PIECES_UNDER_WAY;
use thalweg_common::storage::{GrowingObjects, Piece, Storage, StorageError};
use thalweg_runtime::io::{BoxedRequests, Io};

use super::directory::gone;
use super::names::{Affixes, HIDDEN, PartId};
use super::part::{Object, Part};

/// The place on S3 of a sink.
#[derive(Debug)]
pub(super) struct Objects {
    storage: Arc<dyn Storage>,
    growing: Arc<dyn GrowingObjects>,
    io: Io,
    requests: BoxedRequests<Answer>,
    uploads: HashMap<PartId, Upload>,
    /// Bytes that were taken and that the store does not have.
    under_way: u64,
}

/// A part whose bytes are on their way.
#[derive(Debug)]
struct Upload {
    path: String,
    /// The store's name for it, when it is known.
    id: Option<String>,
    /// Pieces that wait for that.
    waiting: VecDeque<(u32, Bytes)>,
    /// Pieces that the store has, with their tags.
    pieces: BTreeMap<u32, String>,
    next_number: u32,
    /// The newest object with what is behind the pieces, and those before it.
    tail: Option<(String, u64)>,
    tails: Vec<String>,
}

/// What the store has answered.
#[derive(Debug)]
enum Answer {
    Begun(PartId, Result<String, StorageError>),
    Added(PartId, u64, Result<Piece, StorageError>),
    Stored(Result<(), StorageError>),
}

impl Objects {
    pub(super) fn open(storage: Arc<dyn Storage>, growing: Arc<dyn GrowingObjects>, io: Io) -> Self {
        let requests = io.requests();
        Self { storage, growing, io, requests, uploads: HashMap::new(), under_way: 0 }
    }

    pub(super) fn piece_bytes(&self) -> u64 {
        self.growing.piece_bytes()
    }

    pub(super) fn begin(&mut self, id: PartId, path: &str) {
        let upload = Upload {
            path: path.to_owned(),
            id: None,
            waiting: VecDeque::new(),
            pieces: BTreeMap::new(),
            next_number: 1,
            tail: None,
            tails: Vec::new(),
        };
        self.uploads.insert(id, upload);
    }

    /// Sends bytes of a part. What is much longer than a piece, as a row group is, travels as several at the same time.
    pub(super) fn add(&mut self, id: PartId, mut bytes: Bytes) {
        let piece_bytes = usize::try_from(self.piece_bytes()).unwrap_or(usize::MAX);
        while bytes.len() / 2 >= piece_bytes {
            let piece = bytes.split_to(piece_bytes);
            self.add_piece(id, piece);
        }
        self.add_piece(id, bytes);
    }

    fn add_piece(&mut self, id: PartId, bytes: Bytes) {
        let Some(upload) = self.uploads.get_mut(&id) else { return };
        self.under_way += bytes.len() as u64;
        let is_first = upload.next_number == 1;
        upload.waiting.push_back((upload.next_number, bytes));
        upload.next_number += 1;
        if is_first {
            let (growing, path) = (Arc::clone(&self.growing), upload.path.clone());
            self.requests.begin(|| Box::pin(async move { Answer::Begun(id, growing.begin(&path).await) }));
        }
        self.send(id);
    }

    /// Sends what waits for a part's upload to begin, if it has.
    fn send(&mut self, id: PartId) {
        let Some(upload) = self.uploads.get_mut(&id) else { return };
        let Some(object) = &upload.id else { return };
        for (number, bytes) in upload.waiting.drain(..) {
            let (growing, path, object) = (Arc::clone(&self.growing), upload.path.clone(), object.clone());
            self.requests.begin(|| {
                Box::pin(async move {
                    let length = bytes.len() as u64;
                    Answer::Added(id, length, growing.add(&path, &object, number, bytes).await)
                })
            });
        }
    }

    /// Stores what is behind the pieces of a part that goes on.
    pub(super) fn store_tail(&mut self, id: PartId, bytes: &[u8], checkpoint: CheckpointId) {
        let Some(upload) = self.uploads.get_mut(&id) else { return };
        upload.tail = None;
        if bytes.is_empty() {
            return;
        }
        let path = format!("{}.{checkpoint}", id.hidden());
        upload.tail = Some((path.clone(), bytes.len() as u64));
        upload.tails.push(path.clone());
        let (storage, bytes) = (Arc::clone(&self.storage), Bytes::copy_from_slice(bytes));
        self.requests.begin(|| Box::pin(async move { Answer::Stored(storage.put(&path, bytes).await) }));
    }

    /// Takes up what has been answered.
    pub(super) fn take_up(&mut self) -> Result<(), Failure> {
        while let Some(answer) = self.requests.answer() {
            self.answered(answer)?;
        }
        Ok(())
    }

    /// Whether so much is under way that nothing more should come.
    pub(super) fn is_full(&self) -> bool {
        self.under_way > FILE_SINK_PIECES_UNDER_WAY * self.piece_bytes()
    }

    /// Waits until the store has everything.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        self.take_up()?;
        while !self.requests.is_empty() {
            let missing = || Failure::internal("S3 needs the runtime of a worker, and there is none");
            let answer = self.requests.wait().ok_or_else(missing)?;
            self.answered(answer)?;
            self.take_up()?;
        }
        Ok(())
    }

    fn answered(&mut self, answer: Answer) -> Result<(), Failure> {
        match answer {
            Answer::Begun(id, begun) => {
                let object = begun.map_err(|error| Failure::from(&error))?;
                if let Some(upload) = self.uploads.get_mut(&id) {
                    upload.id = Some(object);
                }
                self.send(id);
            }
            Answer::Added(id, bytes, added) => {
                let piece = added.map_err(|error| Failure::from(&error))?;
                self.under_way = self.under_way.saturating_sub(bytes);
                if let Some(upload) = self.uploads.get_mut(&id) {
                    upload.pieces.insert(piece.number, piece.tag);
                }
            }
            Answer::Stored(stored) => stored.map_err(|error| Failure::from(&error))?,
        }
        Ok(())
    }

    /// What a checkpoint needs of a part, when everything has [settled](Self::settle).
    pub(super) fn told(&self, id: PartId) -> Object {
        let told = |upload: &Upload| Object {
            upload: upload.id.clone(),
            pieces: upload.pieces.iter().map(|(number, tag)| (*number, tag.clone())).collect(),
            tail: upload.tail.clone(),
        };
        self.uploads.get(&id).map(told).unwrap_or_default()
    }

    /// Makes parts visible, all at the same time.
    pub(super) fn commit(&mut self, parts: &[(&Part, CheckpointId)]) -> Result<(), Failure> {
        let mut requests: BoxedRequests<Result<(), Failure>> = self.io.requests();
        for (part, checkpoint) in parts {
            let (growing, part, checkpoint) = (Arc::clone(&self.growing), (*part).clone(), *checkpoint);
            let place = format!("{}/{}", self.storage.uri(), part.path);
            requests.begin(|| {
                Box::pin(async move { complete(growing.as_ref(), &part, checkpoint, &place).await })
            });
        }
        while !requests.is_empty() {
            let missing = || Failure::internal("S3 needs the runtime of a worker, and there is none");
            requests.wait().ok_or_else(missing)??;
        }
        let done = parts.iter().filter_map(|(part, _)| self.uploads.remove(&part.id));
        let tails = done.flat_map(|upload| upload.tails).collect();
        self.remove(tails);
        Ok(())
    }

    /// Makes what a part was at a restored checkpoint visible.
    pub(super) fn finish(&mut self, part: &Part, checkpoint: CheckpointId) -> Result<(), Failure> {
        let object = part.object.clone().unwrap_or_default();
        let place = format!("{}/{}", self.storage.uri(), part.path);
        let (storage, growing) = (Arc::clone(&self.storage), Arc::clone(&self.growing));
        let finished = async {
            let mut pieces = object.pieces.clone();
            let mut upload = object.upload.clone();
            if let Some((path, length)) = &object.tail {
                let bytes = match storage.get(path).await {
                    Ok(bytes) if bytes.len() as u64 == *length => bytes,
                    Ok(bytes) => return Err(gone(&place, checkpoint, Some(bytes.len() as u64), *length)),
                    // Whoever finished it before has removed the end of it.
                    Err(error) if error.is_not_found() => {
                        let listed = storage.list(&part.path).await.map_err(|error| Failure::from(&error))?;
                        let found =
                            listed.iter().find(|object| object.path == part.path).map(|object| object.size);
                        let is_done = found == Some(part.bytes);
                        return if is_done {
                            Ok(())
                        } else {
                            Err(gone(&place, checkpoint, found, part.bytes))
                        };
                    }
                    Err(error) => return Err(Failure::from(&error)),
                };
                let id = match upload.take() {
                    Some(id) => id,
                    None => growing.begin(&part.path).await.map_err(|error| Failure::from(&error))?,
                };
                let number = pieces.last().map_or(1, |(number, _)| number + 1);
                match growing.add(&part.path, &id, number, bytes).await {
                    Ok(piece) => pieces.push((piece.number, piece.tag)),
                    // It may be complete: that is seen next.
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(Failure::from(&error)),
                }
                upload = Some(id);
            }
            let whole = Part { object: Some(Object { upload, pieces, tail: None }), ..part.clone() };
            complete(growing.as_ref(), &whole, checkpoint, &place).await
        };
        self.io.wait_for(finished)?
    }

    /// Removes uploads that attempts of this job have left over and that are not pending, and the ends of parts, which no part needs any more
    /// that is finished or pending.
    pub(super) fn clean_up(
        &mut self,
        affixes: &Affixes,
        job: JobId,
        is_left_over: &dyn Fn(&PartId) -> bool,
        is_pending: &dyn Fn(&PartId) -> bool,
    ) -> Result<(), Failure> {
        let (storage, growing) = (Arc::clone(&self.storage), Arc::clone(&self.growing));
        let cleaned = async {
            for (path, object) in growing.begun("").await? {
                let id = PartId::of_visible(&path, affixes, job);
                if id.is_some_and(|id| is_left_over(&id) && !is_pending(&id)) {
                    growing.abort(&path, &object).await?;
                }
            }
            let hidden = storage.list(HIDDEN).await?.into_iter().map(|object| object.path);
            let name = |path: &String| path.rsplit('/').next().and_then(PartId::of_hidden);
            let left: Vec<String> =
                hidden.filter(|path| name(path).is_some_and(|id| is_left_over(&id))).collect();
            if left.is_empty() { Ok(()) } else { storage.delete_many(&left).await }
        };
        self.io.wait_for(cleaned)?.map_err(|error: StorageError| Failure::from(&error))
    }

    /// Writes an empty object.
    pub(super) fn mark(&self, path: &str) -> Result<(), Failure> {
        let marked = self.io.wait_for(self.storage.put(path, Bytes::new()))?;
        marked.map_err(|error| Failure::from(&error))
    }

    /// Removes objects that nobody needs any more. One that stays is removed by the next attempt.
    fn remove(&self, paths: Vec<String>) {
        if paths.is_empty() {
            return;
        }
        let removed = self.io.wait_for(self.storage.delete_many(&paths));
        if let Ok(Err(error)) = removed {
            tracing::warn!("Hidden objects of finished parts remain: {error}");
        }
    }
}

/// Completes the upload of a part, if it was not completed before.
async fn complete(
    growing: &dyn GrowingObjects,
    part: &Part,
    checkpoint: CheckpointId,
    place: &str,
) -> Result<(), Failure> {
    let object = part.object.clone().unwrap_or_default();
    let pieces: Vec<Piece> = object.pieces.into_iter().map(|(number, tag)| Piece { number, tag }).collect();
    let upload = object.upload.unwrap_or_default();
    match growing.complete(&part.path, &upload, &pieces, part.bytes).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() => Err(gone(place, checkpoint, None, part.bytes)),
        Err(error) => Err(Failure::from(&error)),
    }
}
