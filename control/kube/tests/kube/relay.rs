//! A relay of TCP between a firewall and the API server, which a test can close: the firewall is cut off while everybody else
//! goes on. What passes is not looked at.

use std::io::{self, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// A running relay; closed for good when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    over: bool,
    /// Both ends of what is relayed.
    streams: Vec<TcpStream>,
    /// When somebody came, welcome or not.
    arrivals: Vec<Instant>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Relays to `target`, `https://ADDRESS:PORT`.
    pub fn start(target: &str) -> io::Result<Self> {
        let target: SocketAddr = target
            .trim_start_matches("https://")
            .parse()
            .map_err(|_| io::Error::other(format!("not an address: {target}")))?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = lock(&shared);
                if state.over {
                    return;
                }
                state.arrivals.push(Instant::now());
                // Who is not let in finds the connection closed.
                if !state.closed
                    && let Ok(streams) = relay(&stream, target)
                {
                    state.streams.extend(streams);
                }
            }
        });
        Ok(Self { address, state })
    }

    /// Where it listens: `https://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Cuts every connection and lets nobody in.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        for stream in state.streams.drain(..) {
            // It may be over already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets in whoever comes from now on.
    pub fn open(&self) {
        lock(&self.state).closed = false;
    }

    /// When somebody came so far, welcome or not.
    pub fn arrivals(&self) -> Vec<Instant> {
        lock(&self.state).arrivals.clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close();
        lock(&self.state).over = true;
        // Wakes the thread, which ends.
        let _ = TcpStream::connect(self.address);
    }
}

/// Copies both ways until either end closes.
fn relay(near: &TcpStream, target: SocketAddr) -> io::Result<[TcpStream; 2]> {
    let far = TcpStream::connect(target)?;
    for (from, to) in [(near, &far), (&far, near)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            let mut buffer = [0; 16_384];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    Ok([near.try_clone()?, far])
}
