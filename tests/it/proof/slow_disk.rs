//! A disk that does not answer for a while: what is ready is handed out all the same, and nothing else is.

use core::time::Duration;
use std::io::Result;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use obol_queue::{MasterKey, Queue, StorageBackend};
use obol_world::halves::AgentSession;
use obol_world::now;

/// How long the test waits for the queue to fill. Generous: nothing is measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether syncs are held up, and how many are.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    turned: Condvar,
}

impl Gate {
    fn shut(&self, shut: bool) {
        self.state.lock().unwrap().0 = shut;
        self.turned.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        let mut state = self.turned.wait_while(state, |(shut, _)| *shut).unwrap();
        state.1 -= 1;
    }

    fn held_up(&self) -> usize {
        self.state.lock().unwrap().1
    }
}

/// Bytes in memory, with syncs that pass the gate.
struct Disk {
    bytes: Mutex<Vec<u8>>,
    gate: Arc<Gate>,
}

impl Disk {
    fn new(gate: &Arc<Gate>) -> Self {
        Self { bytes: Mutex::default(), gate: Arc::clone(gate) }
    }
}

impl core::fmt::Debug for Disk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Disk")
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.bytes.lock().unwrap().resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.gate.pass();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let start = usize::try_from(offset).unwrap();
        let mut bytes = self.bytes.lock().unwrap();
        let length = bytes.len().max(start + data.len());
        bytes.resize(length, 0);
        bytes[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_ready_is_handed_out_while_the_disk_does_not_answer() {
    let gate = Arc::new(Gate::default());
    let queue = Queue::builder()
        .open_with(Disk::new(&gate), Disk::new(&gate), MasterKey::from_bytes([7; 32]))
        .unwrap();
    queue.provision(AgentSession::new(1, now(), &["search"]).document()).unwrap();
    drop(queue.dequeue_within("search", PATIENCE).unwrap());
    let ready = || queue.tools().iter().map(|tool| tool.ready).sum::<u64>();
    wait_for("nothing is ready", || ready() > 0);

    gate.shut(true);
    // What the queue does next needs the disk, and stands still there.
    let mut drawn = 0;
    while queue.dequeue("search").is_ok() {
        drawn += 1;
    }
    assert!(drawn > 0, "a caller waited for the disk");
    wait_for("nothing asked the disk", || gate.held_up() > 0);
    assert!(queue.dequeue("search").is_err(), "nothing is handed out whose removal is not durable");

    gate.shut(false);
    assert!(queue.dequeue_within("search", PATIENCE).is_ok());
}
