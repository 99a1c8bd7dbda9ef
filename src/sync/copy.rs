//! A copy of the denylist in a local file, from which a node can start while its backend is away.
//!
//! The file: [`MAGIC`], a [`Head`] in JSON, then every change as backends store it, without its readable part; head and
//! changes each after their length (four bytes). At the end, SHA-256 over all of that.

use std::{
    error::Error,
    ffi::OsString,
    fmt,
    fs::{self, File, TryLockError},
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::replica::State;
use crate::{
    backend::{FleetSettings, Position},
    denylist::Denylist,
    revocation::Change,
    time::Moment,
};

/// Why a copy cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum CopyFault {
    /// There is none.
    Missing,
    /// It cannot be read.
    Io(io::Error),
    /// Others than its owner may read or write it.
    Exposed {
        /// Its mode.
        mode: u32,
    },
    /// Another process keeps it.
    InUse,
    /// It is no copy, cut short, or damaged.
    Damaged(&'static str),
    /// Another version of this program wrote it.
    Version {
        /// Its version.
        theirs: u32,
        /// The version that this program reads.
        ours: u32,
    },
    /// It was kept with other settings than this node has.
    Settings {
        /// The setting.
        setting: &'static str,
        /// What the copy has.
        theirs: String,
        /// What this node has.
        ours: String,
    },
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none"),
            Self::Io(error) => error.fmt(f),
            Self::Exposed { mode } => {
                write!(f, "others than its owner may read or write it (mode {mode:o}); if it is yours, set 600")
            }
            Self::InUse => f.write_str("another process keeps it; each node needs one of its own"),
            Self::Damaged(why) => write!(f, "{why}; remove it"),
            Self::Version { theirs, ours } => {
                write!(f, "it is of version {theirs}, this program reads {ours}; start the program that wrote it")
            }
            Self::Settings { setting, theirs, ours } => {
                write!(
                    f,
                    "it was kept with another {setting} ({theirs}) than this node has ({ours}); start with the same"
                )
            }
        }
    }
}

impl Error for CopyFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for CopyFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => SHORT,
            _ => Self::Io(error),
        }
    }
}

const MAGIC: &[u8; 8] = b"TREVCOPY";
const VERSION: u32 = 1;
const SHORT: CopyFault = CopyFault::Damaged("it is cut short");
/// No head and no change is longer.
const LONGEST: u32 = 1 << 20;
const SUM: u64 = 32;
/// How many changes are applied at once.
const PAGE: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    /// As the fleet agreed on them, with its secret.
    settings: FleetSettings,
    /// After how long without news its node refused, in milliseconds: others waited that long for it, and no longer.
    bound: u64,
    /// What the changes hold at least.
    position: Position,
    /// When the node was last known to be in step, in milliseconds of the wall clock (Unix).
    as_of: u64,
    /// The same by the monotonic clock.
    monotonic: u64,
    /// What tells one run of the machine from another: in each the monotonic clock begins anew.
    #[serde(default)]
    boot: Option<String>,
}

/// A copy that is whole.
pub(super) struct LocalCopy {
    file: BufReader<File>,
    head: Head,
    /// Where the changes end.
    end: u64,
}

impl LocalCopy {
    /// Opens a copy, and reads all of it once, to see whether it is whole.
    pub(super) fn open(path: &Path) -> Result<Self, CopyFault> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CopyFault::Missing,
            _ => error.into(),
        })?;
        private(&file)?;
        let end = file.metadata()?.len().checked_sub(SUM).ok_or(SHORT)?;
        let mut file = BufReader::new(file);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(CopyFault::Damaged("it is no copy of a denylist"));
        }
        let head = read(&mut file)?;
        let unreadable = |_| CopyFault::Damaged("its head cannot be read");
        let Version { version } = serde_json::from_slice(&head).map_err(unreadable)?;
        if version != VERSION {
            return Err(CopyFault::Version { theirs: version, ours: VERSION });
        }
        file.rewind()?;
        let mut sum = Sums::of(io::sink());
        io::copy(&mut (&mut file).take(end), &mut sum)?;
        let mut stored = [0; SUM as usize];
        file.read_exact(&mut stored)?;
        if stored != sum.finish() {
            return Err(CopyFault::Damaged("its checksum does not fit: it is cut short or damaged"));
        }
        let start = MAGIC.len() + 4 + head.len();
        file.seek(io::SeekFrom::Start(start as u64))?;
        Ok(Self { file, head: serde_json::from_slice(&head).map_err(unreadable)?, end })
    }

    /// The settings of its fleet, where this node's are the same.
    pub(super) fn settings(&self, ours: &FleetSettings, bound: Duration) -> Result<&FleetSettings, CopyFault> {
        let Head { settings, bound: theirs, .. } = &self.head;
        if let Some((setting, theirs, ours)) = settings.difference(ours) {
            return Err(CopyFault::Settings { setting, theirs, ours });
        }
        // Other nodes have waited for that long only.
        if bound.as_millis() > u128::from(*theirs) {
            let (theirs, ours) = (format!("{theirs} ms"), format!("{} ms", bound.as_millis()));
            return Err(CopyFault::Settings { setting: "shorter staleness bound", theirs, ours });
        }
        Ok(settings)
    }

    /// Loads everything, with its true age. What it holds at least.
    ///
    /// Where its node did not come to an orderly `end`, it may have told and refused more than this holds: then its age
    /// does not say what is missing, and it counts as too old for any bound.
    pub(super) fn load(mut self, denylist: &Denylist, end: End) -> Result<Position, CopyFault> {
        denylist.begins_from_copy();
        let mut page = Vec::new();
        let mut at = self.file.stream_position()?;
        while at < self.end {
            let change = read(&mut self.file)?;
            at += 4 + change.len() as u64;
            page.push(Change::decode(&change).map_err(|why| CopyFault::Damaged(why.0))?);
            if page.len() == PAGE || at >= self.end {
                denylist.apply(&page);
                page.clear();
                if denylist.wants_maintenance() {
                    denylist.maintain();
                }
            }
        }
        let now = denylist.now();
        denylist.in_step_before(now, if end == End::Orderly { self.head.age(now) } else { Duration::MAX });
        Ok(self.head.position)
    }
}

/// How the process ended that kept a copy last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// It wrote the copy once nothing could be recorded any more.
    #[default]
    Orderly,
    /// It was killed, or crashed.
    Sudden,
}

/// The part of the head that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Head {
    fn age(&self, now: Moment) -> Duration {
        if now.wall < self.as_of {
            // The wall clock was set back: nobody knows how long ago that was.
            return Duration::MAX;
        }
        let same_run = self.boot.is_some() && self.boot == boot();
        now.since(Moment::new(self.as_of, if same_run { self.monotonic } else { now.monotonic }))
    }
}

/// Which run of this machine this is, where that can be known.
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(unix)]
fn private(file: &File) -> Result<(), CopyFault> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    // Those of its group may be let in where a volume's owner is set by group.
    if mode & 0o007 == 0 { Ok(()) } else { Err(CopyFault::Exposed { mode }) }
}

#[cfg(not(unix))]
fn private(_: &File) -> Result<(), CopyFault> {
    Ok(())
}

fn read(from: &mut impl Read) -> Result<Vec<u8>, CopyFault> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > LONGEST {
        return Err(CopyFault::Damaged("it is no copy of a denylist, or damaged"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("a change is longer than a copy can hold"))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(bytes)
}

/// Sums up what passes.
struct Sums<W> {
    to: W,
    sum: Sha256,
}

impl<W: Write> Sums<W> {
    fn of(to: W) -> Self {
        Self { to, sum: Sha256::new() }
    }

    fn finish(self) -> [u8; SUM as usize] {
        self.sum.finalize().into()
    }
}

impl<W: Write> Write for Sums<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Keeps a copy up to date.
pub(super) struct Keeper {
    path: PathBuf,
    /// Locked for as long as it takes to write.
    kept: Mutex<Kept>,
    failed: Mutex<Option<String>>,
}

#[derive(Default)]
struct Kept {
    /// Held as long as this process keeps the copy. It is removed at an orderly end, so one that is there tells of another.
    lock: Option<File>,
    /// How the process before this one ended.
    before: End,
    /// How often others had said at that time that they wait for it.
    waiting: u64,
    /// What the copy tells of; it is written again once that has changed.
    mark: Option<(u64, (u64, u64))>,
    closed: bool,
}

/// What a copy is made of.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) denylist: Arc<Denylist>,
    pub(super) settings: FleetSettings,
    pub(super) state: watch::Receiver<State>,
}

impl Keeper {
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path, kept: Mutex::default(), failed: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes sure that no other process keeps it: of two nodes with one copy, nobody would wait for the second one. Before
    /// anything is applied, so that it shows if this process does not come to an orderly end.
    pub(super) fn take(&self) -> Result<End, CopyFault> {
        let mut kept = self.kept();
        self.take_for(&mut kept, false)?;
        Ok(kept.before)
    }

    /// The same for a process that goes on without it, since the backend is there. If nothing can tell of its end, no copy
    /// may be there that looks as if it told of everything.
    pub(super) fn take_if_free(&self) {
        match self.take_for(&mut self.kept(), true) {
            Ok(()) | Err(CopyFault::InUse) => {}
            // Where that fails too, the next start cannot take it either. It is said when it is to be written.
            Err(_) => drop(fs::remove_file(&self.path)),
        }
    }

    /// `goes_on`: this process goes on without it.
    fn take_for(&self, kept: &mut Kept, goes_on: bool) -> Result<(), CopyFault> {
        const TRIES: usize = 100;
        if kept.lock.is_some() || kept.closed {
            return Ok(());
        }
        // A file of its own, since each copy replaces the one before.
        let path = self.beside(".lock");
        for _ in 0..TRIES {
            let (mut file, before) = match mine(fs::OpenOptions::new().create_new(true)).open(&path) {
                Ok(file) => (file, End::Orderly),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match fs::OpenOptions::new().append(true).open(&path) {
                        Ok(file) => (file, End::Sudden),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            };
            let waiting = file.metadata()?.len();
            match file.try_lock() {
                // Its owner has come to its end since it was opened: it tells of nobody any more.
                Ok(()) if is_removed(&file)? => continue,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    // Its owner would remove it at its end, and nothing would tell of this process.
                    if goes_on {
                        file.write_all(b"+")?;
                        if is_removed(&file)? {
                            continue;
                        }
                    }
                    return Err(CopyFault::InUse);
                }
                Err(TryLockError::Error(error)) => return Err(CopyFault::Io(error)),
            }
            if before == End::Orderly {
                sync_folder(&path)?;
            }
            (kept.lock, kept.before, kept.waiting) = (Some(file), before, waiting);
            return Ok(());
        }
        Err(CopyFault::InUse)
    }

    /// Removes what would tell of a sudden end.
    fn release(&self, kept: &Kept) -> io::Result<()> {
        let Some(lock) = &kept.lock else { return Ok(()) };
        let path = self.beside(".lock");
        fs::remove_file(&path)?;
        // In this order: who says it later sees that it is removed.
        if lock.metadata()?.len() > kept.waiting {
            mine(fs::OpenOptions::new().create(true)).open(&path)?;
        }
        sync_folder(&path)
    }

    /// Leaves it as it was found: nothing was applied.
    pub(super) fn leave(&self) {
        let mut kept = self.kept();
        if kept.before == End::Orderly {
            // It is as after a crash then.
            let _ = self.release(&kept);
        }
        kept.lock = None;
    }

    /// What it tells of is what this node was loaded with.
    pub(super) fn is_as(&self, denylist: &Denylist) {
        self.kept().mark = Some(denylist.mark());
    }

    /// Writes it now and then.
    pub(super) async fn keep(self: Arc<Self>, every: Duration, source: Source) {
        let this = Arc::clone(&self);
        // It fails only where the runtime is going down.
        let _ = tokio::task::spawn_blocking(move || this.begin()).await;
        loop {
            tokio::time::sleep(every).await;
            self.clone().write(source.clone()).await;
        }
    }

    /// Takes it, if it can be had already, and looks at what is there.
    fn begin(&self) {
        let _taken = self.take_for(&mut self.kept(), true);
        #[cfg(feature = "tracing")]
        {
            let (path, found) = (self.path.display(), LocalCopy::open(&self.path));
            if let Err(fault) = &_taken {
                tracing::warn!(%path, %fault, "this node cannot keep its copy yet; trying again");
            }
            match found {
                Ok(_) | Err(CopyFault::Missing) => {}
                Err(fault) => {
                    tracing::warn!(%path, %fault, "this node could not have started from its copy; it is replaced");
                }
            }
        }
    }

    /// Writes it where anything has changed.
    pub(super) async fn write(self: Arc<Self>, source: Source) {
        // It fails only where the runtime is going down.
        let _ = tokio::task::spawn_blocking(move || self.write_now(&source, false)).await;
    }

    /// Writes it for the last time, and leaves it to others.
    pub(super) async fn close(self: Arc<Self>, source: Source) {
        let _ = tokio::task::spawn_blocking(move || self.write_now(&source, true)).await;
    }

    /// What kept the last copy from being written.
    pub(super) fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write_now(&self, source: &Source, last: bool) {
        let mut kept = self.kept();
        if kept.closed {
            return;
        }
        let outcome = self.try_write(&mut kept, source);
        #[cfg(feature = "tracing")]
        if let Err(fault) = &outcome {
            let path = self.path.display();
            tracing::error!(%path, %fault, "this node's copy could not be written; trying again");
        }
        let failed = outcome.err().map(|fault| format!("writing the copy {}: {fault}", self.path.display()));
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        if last {
            // Only what tells of all that this process knew is an orderly end, or of one that knew nothing.
            let denylist = &source.denylist;
            let untouched = kept.before == End::Orderly && kept.mark.is_none() && denylist.is_untouched();
            if kept.lock.is_some() && (untouched || kept.mark == Some(denylist.mark())) {
                let removed = self.release(&kept);
                #[cfg(feature = "tracing")]
                if let Err(error) = &removed {
                    let path = self.path.display();
                    tracing::error!(%path, %error, "this node's end will look like a crash to the next start");
                }
                let _ = removed;
            }
            (kept.closed, kept.lock) = (true, None);
        }
    }

    fn try_write(&self, kept: &mut Kept, source: &Source) -> Result<(), CopyFault> {
        let Source { denylist, settings, state } = source;
        // All of it before the entries are listed: the copy may hold more than it says, never less.
        let (mark, now) = (denylist.mark(), denylist.now());
        let (Some(position), Some(age)) = (state.borrow().applied.clone(), denylist.staleness()) else { return Ok(()) };
        if kept.mark == Some(mark) {
            return Ok(());
        }
        self.take_for(kept, true)?;
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let head = Head {
            version: VERSION,
            settings: settings.clone(),
            bound: u64::try_from(denylist.staleness_policy().after().as_millis()).unwrap_or(u64::MAX),
            position,
            as_of: now.wall.saturating_sub(age),
            monotonic: now.monotonic.saturating_sub(age),
            boot: boot(),
        };
        let temporary = self.beside(".tmp");
        let written = self.write_to(&temporary, &head, denylist);
        if written.is_err() {
            // The error is what counts.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        kept.mark = Some(mark);
        Ok(())
    }

    fn write_to(&self, temporary: &Path, head: &Head, denylist: &Denylist) -> io::Result<()> {
        match fs::remove_file(temporary) {
            // What a crash left behind.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file = mine(fs::OpenOptions::new().create_new(true)).open(temporary)?;
        let mut out = Sums::of(BufWriter::new(&mut file));
        out.write_all(MAGIC)?;
        write(&mut out, &serde_json::to_vec(head)?)?;
        denylist.each_held(|change| write(&mut out, &change.encode()))?;
        out.flush()?;
        let sum = out.finish();
        file.write_all(&sum)?;
        file.sync_all()?;
        drop(file);
        fs::rename(temporary, &self.path)?;
        sync_folder(&self.path)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = OsString::from(&self.path);
        path.push(suffix);
        path.into()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the owner alone.
fn mine(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.write(true)
}

/// Whether another process has removed it since it was opened.
#[cfg(unix)]
fn is_removed(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.nlink() == 0)
}

#[cfg(not(unix))]
fn is_removed(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Makes a rename last.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
