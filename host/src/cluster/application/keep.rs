//! What the manager of one job keeps where the job keeps its checkpoints: that is all that a manager finds which takes its place on another machine.

use crate::load;
use standpipe_checkpoint::{CheckpointError, Location, Store};
use standpipe_cluster::{
    application::{Ended, Keep, KeepError, Wish},
    blobs::{BlobError, Blobs},
    bundle::{Bundle, File, Hash},
};
use standpipe_pipeline::{EngineSetting, LoadOptions};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// How the job has ended.
const ENDED: &str = "ended.json";
/// What it was given while it ran.
const PARALLELISM: &str = "parallelism";

/// What somebody wishes of its end.
const WISH: &str = "wish";

struct Kept {
    store: Store,
    job: String,
    /// The number of this manager's claim; 0: it has none.
    claim: AtomicU64,
}

/// By the pipeline file, as its worker reads it. None: the job takes no checkpoints, or keeps them where this machine sees none.
pub(super) fn open(pipeline: &Path, bundle: &Bundle, job: &str) -> Result<Option<Arc<dyn Keep>>, String> {
    let setting = |(key, value): (&String, &String)| {
        let key = key.strip_prefix(crate::deployment::mode::ENGINE)?.to_owned();
        Some(EngineSetting { key, value: value.clone(), origin: "the bundle".to_owned() })
    };
    let settings = bundle.configuration.iter().filter_map(setting).collect();
    let options = LoadOptions { parallelism: bundle.options.parallelism, set: Vec::new(), settings };
    let pipeline = load::read(pipeline, &options).map_err(|error| error.to_string())?;
    let Some(settings) = &pipeline.checkpoint else { return Ok(None) };
    if folder(settings.dir()).is_some_and(|folder| !folder.is_absolute() || !folder.is_dir()) {
        return Ok(None);
    }
    let opened = Location::open(settings.dir(), &[]).and_then(|location| Store::open(location, pipeline.name()));
    let store = opened.map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(Kept { store, job: job.to_owned(), claim: AtomicU64::new(0) })))
}

/// Of a place on a disk.
fn folder(place: &str) -> Option<PathBuf> {
    match place.strip_prefix("file://") {
        Some(path) => Some(PathBuf::from(path)),
        None => (!place.contains("://")).then(|| PathBuf::from(place)),
    }
}

fn line(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Keep for Kept {
    fn claim(&self, generation: u64, anew: bool) -> Result<bool, KeepError> {
        // A manager that is started again on its data is who it was before.
        let who = generation.to_string();
        let claim = match self.store.newest_claim(&self.job).map_err(line)? {
            Some((newest, by)) if by == who => newest,
            Some(_) if !anew => return Err(KeepError::Superseded),
            _ => self.store.claim_run(&self.job, &who).map_err(line)?,
        };
        self.claim.store(claim, SeqCst);
        Ok(claim > 1)
    }

    fn check(&self) -> Result<(), KeepError> {
        let newest = self.store.newest_claim(&self.job).map_err(line)?;
        match newest {
            Some((newest, _)) if newest > self.claim.load(SeqCst) => Err(KeepError::Superseded),
            _ => Ok(()),
        }
    }

    fn has_begun(&self) -> Result<bool, String> {
        match self.store.has_begun(&self.job) {
            // Another job of its name has begun since: its process says so when it begins.
            Err(CheckpointError::Fenced { .. }) => Ok(true),
            other => other.map_err(line),
        }
    }

    fn ended(&self) -> Result<Option<Ended>, String> {
        let text = self.store.noted(&self.job, ENDED).map_err(line)?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| format!("{ENDED} of the job is not understood: {error}"))).transpose()
    }

    fn end(&self, ended: &Ended) -> Result<(), KeepError> {
        self.check()?;
        self.store.note(&self.job, ENDED, &ended.text()).map_err(line)?;
        if self.check() == Err(KeepError::Superseded) {
            // Another one came in between, and may not have seen it: the job is that one's.
            self.store.forget(&self.job, ENDED).map_err(line)?;
            return Err(KeepError::Superseded);
        }
        Ok(self.store.forget_kept(&self.job, &[ENDED]).map_err(line)?)
    }

    fn parallelism(&self) -> Result<Option<u32>, String> {
        let text = self.store.noted(&self.job, PARALLELISM).map_err(line)?;
        text.map(|text| text.parse().map_err(|_| format!("{PARALLELISM} of the job is no number"))).transpose()
    }

    fn keep_parallelism(&self, parallelism: u32) -> Result<(), KeepError> {
        self.check()?;
        Ok(self.store.keep(&self.job, PARALLELISM, parallelism.to_string().as_bytes()).map_err(line)?)
    }

    fn wish(&self) -> Result<Option<Wish>, String> {
        let text = self.store.noted(&self.job, WISH).map_err(line)?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| format!("{WISH} of the job is not understood: {error}"))).transpose()
    }

    fn keep_wish(&self, wish: Option<&Wish>) -> Result<(), String> {
        let Some(wish) = wish else { return self.store.forget(&self.job, WISH).map_err(line) };
        let text = serde_json::to_vec(wish).map_err(line)?;
        self.store.keep(&self.job, WISH, text.as_slice()).map_err(line)
    }

    fn has(&self, file: &File) -> Result<bool, String> {
        // One of another length is none that was sent as this one.
        Ok(self.store.kept_bytes(&self.job, &file.hash.digits()).map_err(line)? == Some(file.bytes))
    }

    fn fetch(&self, hash: Hash, blobs: &Blobs) -> Result<bool, String> {
        let mut incoming = blobs.begin(hash).map_err(line)?;
        let found = self.store.kept(&self.job, &hash.digits(), |piece| incoming.write(piece).map_err(anyhow::Error::from)).map_err(line)?;
        if !found {
            return Ok(false);
        }
        match incoming.finish() {
            Err(damaged @ BlobError::Hash { .. }) => {
                tracing::warn!("what a former job manager was sent is damaged where the job keeps its checkpoints: {damaged}");
                self.store.forget(&self.job, &hash.digits()).map_err(line)?;
                Ok(false)
            }
            other => other.map(|()| true).map_err(line),
        }
    }

    fn keep(&self, hash: Hash, file: &Path) -> Result<(), String> {
        let content = fs::File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
        self.store.keep(&self.job, &hash.digits(), content).map_err(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_cluster::bundle::Options;
    use std::collections::BTreeMap;

    const JOB: &str = "0123456789abcdef0123456789abcdef";

    fn bundle(configuration: &[(&str, &str)]) -> Bundle {
        Bundle {
            standpipe: env!("CARGO_PKG_VERSION").to_owned(),
            name: "counts".to_owned(),
            pipeline: File { path: "counts.yaml".to_owned(), hash: Hash::of(b""), bytes: 0 },
            plugins: Vec::new(),
            resources: Vec::new(),
            configuration: configuration.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>(),
            options: Options::default(),
        }
    }

    fn pipeline(root: &Path, checkpoint: &str) -> PathBuf {
        let path = root.join("counts.yaml");
        let nodes = "sources: {s: {connector: generator, with: {count: 1}}}\nsinks: {out: {input: s, connector: print, format: json}}\n";
        fs::write(&path, format!("name: counts\n{checkpoint}\n{nodes}")).unwrap();
        path
    }

    #[test]
    fn it_is_where_the_pipeline_or_the_deployment_says_that_checkpoints_are() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("ckpt");
        let opened = |checkpoint: &str, configuration: &[(&str, &str)]| {
            open(&pipeline(root.path(), checkpoint), &bundle(configuration), JOB).unwrap().is_some()
        };
        let here = format!("checkpoint: {{interval: 1s, dir: {}}}", folder.display());
        assert!(!opened("", &[]) && !opened("checkpoint: {interval: 1s}", &[]), "a folder of each task manager's own");
        assert!(!opened(&here, &[]) && !folder.exists(), "a folder that is not here is not made");
        fs::create_dir(&folder).unwrap();
        assert!(opened(&here, &[]));
        let dir = folder.display().to_string();
        assert!(opened("", &[("engine.checkpoint.interval", "1s"), ("engine.checkpoint.dir", &dir)]));
        assert!(opened("", &[("engine.checkpoint.interval", "1s"), ("engine.checkpoint.dir", &format!("file://{dir}"))]));
        let error = open(&pipeline(root.path(), "checkpoint: {interval: 1s, dir: ftp://x/y}"), &bundle(&[]), JOB).err().unwrap();
        assert!(error.contains("no place for checkpoints"), "{error}");
    }

    #[test]
    fn the_next_manager_finds_what_was_sent_and_how_the_job_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("ckpt");
        fs::create_dir(&folder).unwrap();
        let file = pipeline(root.path(), &format!("checkpoint: {{interval: 1s, dir: {}}}", folder.display()));
        let open = || open(&file, &bundle(&[]), JOB).unwrap().unwrap();
        let blob = root.path().join("blob");
        fs::write(&blob, "content").unwrap();
        open().keep(Hash::of(b"content"), &blob).unwrap();
        open().keep(Hash::of(b"other"), &blob).unwrap();
        let blobs = Blobs::open(root.path().join("blobs")).unwrap();
        assert_eq!(open().fetch(Hash::of(b"content"), &blobs), Ok(true));
        assert!(blobs.has(Hash::of(b"content")));
        assert_eq!(open().fetch(Hash::of(b"never"), &blobs), Ok(false));
        let other = File { path: "x".to_owned(), hash: Hash::of(b"other"), bytes: 7 };
        assert_eq!(open().has(&other), Ok(true));
        assert_eq!((open().fetch(other.hash, &blobs), open().has(&other)), (Ok(false), Ok(false)), "damaged");
        assert_eq!((open().has_begun(), open().ended(), open().parallelism()), (Ok(false), Ok(None), Ok(None)));
        open().keep_parallelism(4).unwrap();
        open().keep_parallelism(2).unwrap();
        assert_eq!(open().parallelism(), Ok(Some(2)));
        for wish in [Wish::Cancel, Wish::Stop { request: "r".to_owned(), ask: serde_json::json!({"do": "stop", "to": null}) }] {
            open().keep_wish(Some(&wish)).unwrap();
            assert_eq!(open().wish(), Ok(Some(wish)));
        }
        open().keep_wish(None).unwrap();
        assert_eq!(open().wish(), Ok(None));
        let ended = Ended::failed(JOB, "it has failed".to_owned(), 7);
        open().end(&ended).unwrap();
        assert_eq!(open().ended(), Ok(Some(ended)));
        assert_eq!(open().fetch(Hash::of(b"content"), &blobs), Ok(false), "it is not needed any more");
    }
    #[test]
    fn a_manager_that_another_one_has_followed_decides_nothing_any_more() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("ckpt");
        fs::create_dir(&folder).unwrap();
        let file = pipeline(root.path(), &format!("checkpoint: {{interval: 1s, dir: {}}}", folder.display()));
        let open = || open(&file, &bundle(&[]), JOB).unwrap().unwrap();
        let former = open();
        assert_eq!((former.claim(100, true), former.check()), (Ok(false), Ok(())));
        // It is started again, with its data, and finds the place later.
        let again = open();
        assert_eq!((again.claim(100, false), again.keep_parallelism(3)), (Ok(false), Ok(())));
        let next = open();
        assert_eq!((next.claim(101, true), next.ended()), (Ok(true), Ok(None)));
        let failed = Ended::failed(JOB, "its task managers are with the other one".to_owned(), 7);
        for old in [&former, &again] {
            assert_eq!((old.check(), old.keep_parallelism(4)), (Err(KeepError::Superseded), Err(KeepError::Superseded)));
            assert_eq!(old.end(&failed), Err(KeepError::Superseded));
        }
        assert_eq!(open().claim(100, false), Err(KeepError::Superseded));
        assert_eq!((next.ended(), next.parallelism()), (Ok(None), Ok(Some(3))));
        next.end(&Ended { state: "FINISHED".to_owned(), ..failed.clone() }).unwrap();
        // Also after the end of the job.
        assert_eq!(former.end(&failed), Err(KeepError::Superseded));
        assert_eq!(open().ended().unwrap().unwrap().state, "FINISHED");
    }
}
