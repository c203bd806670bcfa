//! A disk that loses power.
//!
//! It holds the two files of a store. What is written is visible at once and durable only once its file was synced;
//! until then it waits in a list of its own. A power cut keeps an arbitrary part of that list, in arbitrary order, with
//! writes torn at sectors or bytes, and from that moment on the process that had the files open gets errors only.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use obol_queue::StorageBackend;
use obol_world::random::Random;

/// What a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: u64 = 512;
const PAGE: usize = 4096;

/// Which of the two files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    Database,
    Keys,
}

pub(super) const NAMES: [Name; 2] = [Name::Database, Name::Keys];

/// The bytes of one file; copies share what they have in common.
#[derive(Clone, Default)]
pub(super) struct Image {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    length: u64,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    fn set_len(&mut self, length: u64) {
        let pages = usize::try_from(length.div_ceil(PAGE as u64)).unwrap();
        self.pages.resize(pages, None);
        let used = usize::try_from(length % PAGE as u64).unwrap();
        if length < self.length && used > 0 {
            // What lay behind the end must not come back when the file grows again.
            if let Some(Some(last)) = self.pages.last_mut() {
                Arc::make_mut(last)[used..].fill(0);
            }
        }
        self.length = length;
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        if end > self.length {
            self.set_len(end);
        }
        let mut offset = usize::try_from(offset).unwrap();
        let mut data = data;
        while !data.is_empty() {
            let (page, inside) = (offset / PAGE, offset % PAGE);
            let (now, rest) = data.split_at(data.len().min(PAGE - inside));
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[inside..inside + now.len()].copy_from_slice(now);
            offset += now.len();
            data = rest;
        }
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        if offset + out.len() as u64 > self.length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut offset = usize::try_from(offset).unwrap();
        let mut out = out;
        while !out.is_empty() {
            let (page, inside) = (offset / PAGE, offset % PAGE);
            let (now, rest) = out.split_at_mut(usize::min(out.len(), PAGE - inside));
            match &self.pages[page] {
                Some(page) => now.copy_from_slice(&page[inside..inside + now.len()]),
                None => now.fill(0),
            }
            offset += now.len();
            out = rest;
        }
        Ok(())
    }

    /// Where bytes that are not zero lie.
    pub(super) fn occupied(&self) -> Vec<u64> {
        let bytes = |(number, page): (usize, &Option<Arc<[u8; PAGE]>>)| {
            let start = (number * PAGE) as u64;
            let occupied: Vec<u64> = page.iter().flat_map(|page| page.iter().enumerate()).fold(
                Vec::new(),
                |mut list, (place, byte)| {
                    if *byte != 0 {
                        list.push(start + place as u64);
                    }
                    list
                },
            );
            occupied
        };
        self.pages.iter().enumerate().flat_map(bytes).collect()
    }

    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let mut byte = [0];
        self.read(offset, &mut byte).unwrap();
        self.write(offset, &[byte[0] ^ (1 << bit)]);
    }
}

#[derive(Clone)]
enum Change {
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

impl Change {
    fn apply(&self, image: &mut Image) {
        match self {
            Self::Write(offset, data) => image.write(*offset, data),
            Self::SetLen(length) => image.set_len(*length),
        }
    }
}

#[derive(Clone, Default)]
struct File {
    live: Image,
    durable: Image,
    unsynced: Vec<Change>,
}

impl File {
    fn holding(image: Image) -> Self {
        Self { live: image.clone(), durable: image, unsynced: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }
}

/// What survives of the unsynced changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Survival {
    Nothing,
    Everything,
    /// Every second change.
    Odd,
    /// Every change, but of each write only every second sector.
    Torn,
    /// Any part, in any order, torn at sectors.
    Sectors,
    /// Any part, in any order; what is longer than a sector is torn at any byte.
    Bytes,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Fate {
    #[default]
    Well,
    /// The power fails in the middle of this change or sync, counted from 1.
    PowerCut(u64),
    /// This change or sync fails with an error, and with `lasting` all after it.
    Fails { at: u64, error: ErrorKind, lasting: bool },
    /// This read fails, counted from 1.
    FailsToRead(u64),
}

struct State {
    files: [File; 2],
    /// Processes that had the files open; only the latest reaches them.
    process: u64,
    powered: bool,
    fate: Fate,
    failed: bool,
    /// Changes and syncs since the power came back.
    operations: u64,
    reads: u64,
    /// Files whose syncs do nothing.
    lying: Vec<Name>,
    random: Random,
}

/// See the module's header. Copies are the same disk.
#[derive(Clone)]
pub(super) struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    /// A disk with these two files on it, both durable.
    pub(super) fn holding(files: [Image; 2], seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: files.map(File::holding),
            process: 0,
            powered: true,
            fate: Fate::Well,
            failed: false,
            operations: 0,
            reads: 0,
            lying: Vec::new(),
            random: Random::new(seed),
        })))
    }

    pub(super) fn empty(seed: u64) -> Self {
        Self::holding([Image::default(), Image::default()], seed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes the syncs of a file do nothing.
    pub(super) fn lie_about(&self, name: Name) {
        self.state().lying.push(name);
    }

    /// Decides what goes wrong; counting begins anew.
    pub(super) fn arm(&self, fate: Fate) {
        let mut state = self.state();
        state.fate = fate;
        state.operations = 0;
        state.reads = 0;
        state.failed = false;
    }

    pub(super) fn reads(&self) -> u64 {
        self.state().reads
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the power is on and nothing has failed.
    pub(super) fn is_well(&self) -> bool {
        let state = self.state();
        state.powered && !state.failed
    }

    /// Hands a file to the process that runs now.
    pub(super) fn open(&self, name: Name) -> Drive {
        let process = self.state().process;
        Drive { disk: self.clone(), name, process }
    }

    /// The power fails, now if it has not failed before, and comes back. What survives is on the disk then.
    pub(super) fn cut_power(&self, survival: Survival) {
        let mut state = self.state();
        let State { files, random, .. } = &mut *state;
        for file in files {
            *file = File::holding(survive(file, survival, random));
        }
        state.next_process();
    }

    /// The process ends without a power cut: what was written stays written.
    pub(super) fn kill_process(&self) {
        let mut state = self.state();
        for file in &mut state.files {
            *file = File::holding(file.live.clone());
        }
        state.next_process();
    }

    /// What a power cut would leave if nothing unsynced survived.
    pub(super) fn durable(&self) -> [Image; 2] {
        let state = self.state();
        [state.files[0].durable.clone(), state.files[1].durable.clone()]
    }
}

fn survive(file: &File, survival: Survival, random: &mut Random) -> Image {
    let mut image = file.durable.clone();
    let mut changes: Vec<(usize, &Change)> = file.unsynced.iter().enumerate().collect();
    if matches!(survival, Survival::Sectors | Survival::Bytes) {
        // Now and then everything or nothing, in order: what a cut most often does.
        let share = random.below(5);
        changes.retain(|_| random.below(4) < share);
        if random.one_in(2) {
            random.shuffle(&mut changes);
        }
    }
    for (number, change) in changes {
        match (survival, change) {
            (Survival::Nothing, _) => {}
            (Survival::Odd, _) if number % 2 == 0 => {}
            (Survival::Torn, Change::Write(offset, data)) => {
                tear(&mut image, *offset, data, |sector| sector % 2 == 0);
            }
            (Survival::Sectors, Change::Write(offset, data)) if random.one_in(3) => {
                tear(&mut image, *offset, data, |_| random.one_in(2));
            }
            (Survival::Bytes, Change::Write(offset, data))
                if data.len() as u64 > SECTOR_BYTES && random.one_in(2) =>
            {
                let cut = usize::try_from(random.below(data.len() as u64)).unwrap();
                if random.one_in(2) {
                    image.write(*offset, &data[..cut]);
                } else {
                    image.write(*offset + cut as u64, &data[cut..]);
                }
            }
            (_, change) => change.apply(&mut image),
        }
    }
    image
}

/// Writes those sectors that `keep` picks.
fn tear(image: &mut Image, offset: u64, data: &[u8], mut keep: impl FnMut(u64) -> bool) {
    let mut place = offset;
    let mut rest = data;
    while !rest.is_empty() {
        let room = usize::try_from(SECTOR_BYTES - place % SECTOR_BYTES).unwrap();
        let (now, later) = rest.split_at(rest.len().min(room));
        if keep(place / SECTOR_BYTES) {
            image.write(place, now);
        }
        place += now.len() as u64;
        rest = later;
    }
}

impl State {
    fn next_process(&mut self) {
        self.process += 1;
        self.powered = true;
        self.failed = false;
        self.fate = Fate::Well;
        self.operations = 0;
    }

    fn reach(&self, process: u64) -> Result<()> {
        if self.powered && self.process == process {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::BrokenPipe, "the power is off"))
        }
    }

    /// Counts one change or sync, and tells what becomes of it.
    fn strike(&mut self) -> Outcome {
        self.operations += 1;
        match self.fate {
            Fate::PowerCut(at) if self.operations >= at => {
                self.powered = false;
                Outcome::PowerCut
            }
            Fate::Fails { at, error, lasting }
                if self.operations == at || (lasting && self.operations > at) =>
            {
                self.failed = true;
                Outcome::Fails(error)
            }
            _ => Outcome::Done,
        }
    }

    fn change(&mut self, process: u64, name: Name, change: Change) -> Result<()> {
        self.reach(process)?;
        let outcome = self.strike();
        let file = &mut self.files[name as usize];
        match outcome {
            Outcome::Done => {
                file.change(change);
                Ok(())
            }
            Outcome::PowerCut => {
                file.change(change);
                self.reach(process)
            }
            Outcome::Fails(error) => {
                // Some of a write that fails may be there all the same.
                if let Change::Write(offset, data) = change {
                    let done = usize::try_from(self.random.below(data.len() as u64 + 1)).unwrap();
                    self.files[name as usize].change(Change::Write(offset, data[..done].into()));
                }
                Err(error.into())
            }
        }
    }

    fn sync(&mut self, process: u64, name: Name) -> Result<()> {
        self.reach(process)?;
        match self.strike() {
            Outcome::Done if self.lying.contains(&name) => Ok(()),
            Outcome::Done => {
                self.files[name as usize].sync();
                Ok(())
            }
            Outcome::PowerCut => self.reach(process),
            Outcome::Fails(error) => {
                // As the kernel does: what did not reach the disk counts as clean, and no later sync writes it.
                let Self { files, random, .. } = self;
                let file = &mut files[name as usize];
                file.durable = survive(file, Survival::Sectors, random);
                file.unsynced.clear();
                Err(error.into())
            }
        }
    }
}

enum Outcome {
    Done,
    PowerCut,
    Fails(ErrorKind),
}

/// One file in the hands of one process.
pub(super) struct Drive {
    disk: SimulatedDisk,
    name: Name,
    process: u64,
}

impl core::fmt::Debug for Drive {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Drive").field("name", &self.name).finish_non_exhaustive()
    }
}

impl StorageBackend for Drive {
    fn len(&self) -> Result<u64> {
        let state = self.disk.state();
        state.reach(self.process)?;
        Ok(state.files[self.name as usize].live.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let mut state = self.disk.state();
        state.reach(self.process)?;
        state.reads += 1;
        if state.fate == Fate::FailsToRead(state.reads) {
            state.failed = true;
            return Err(ErrorKind::Other.into());
        }
        state.files[self.name as usize].live.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.disk.state().change(self.process, self.name, Change::SetLen(len))
    }

    fn sync_data(&self) -> Result<()> {
        self.disk.state().sync(self.process, self.name)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.disk.state().change(self.process, self.name, Change::Write(offset, data.into()))
    }
}
