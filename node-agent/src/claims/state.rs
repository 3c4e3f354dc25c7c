//! What a node remembers of its claims across restarts: `claims.json` in the state directory.
//!
//! The store is the truth about who holds a block. This file is what lets a node tell the store again, under the
//! same names and with the same times, when the store was lost or rolled back (DESIGN, invariant 13).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::durable;
use crate::node::{Block, Claim, NodeName};

/// Name of the file.
pub const FILE_NAME: &str = "claims.json";

/// Where it is put if it can't be read.
pub const ASIDE_NAME: &str = "claims.json.unreadable";

/// So often, and with such pauses between, is tried what may be a moment's trouble.
const READ_TRIES: u32 = 4;
const READ_PAUSE: Duration = Duration::from_millis(50);

/// No more former blocks than this are remembered.
const MOST_FORMER: usize = 64;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) node: NodeName,
    /// Blocks that are ours.
    pub(super) held: BTreeMap<Block, Claim>,
    /// Blocks that were ours until another node had them.
    pub(super) lost: BTreeMap<Block, LostBlock>,
    /// Blocks that were ours, the latest first.
    pub(super) former: Vec<Block>,
    /// Blocks that were given back by order, and when.
    pub(super) given_back: BTreeMap<Block, Timestamp>,
    /// Fields of newer versions, kept as they came: after a way back they still know what they knew.
    pub(super) unknown: BTreeMap<String, Value>,
}

/// A block that another node holds by now (DESIGN, invariant 13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostBlock {
    /// The block.
    pub block: Block,
    /// Who holds it.
    pub holder: NodeName,
    /// When we learned of it.
    pub since: Timestamp,
    /// The other claim has been in a snapshot.
    pub(super) seen: bool,
}

impl State {
    pub(super) fn new(node: NodeName) -> Self {
        Self {
            node,
            held: BTreeMap::new(),
            lost: BTreeMap::new(),
            former: Vec::new(),
            given_back: BTreeMap::new(),
            unknown: BTreeMap::new(),
        }
    }

    /// The latest first, each once.
    pub(super) fn remember_former(&mut self, block: Block) {
        self.former.retain(|other| *other != block);
        self.former.insert(0, block);
        self.former.truncate(MOST_FORMER);
    }
}

/// What was found in the state directory.
#[derive(Debug)]
pub(super) enum Loaded {
    Nothing,
    State(State),
    /// The file speaks of a node of another name.
    OtherNode(State),
    /// The file could not be read; it was put aside if that was possible.
    Unreadable(String),
}

pub(super) fn load(directory: &Path, node: &NodeName) -> Loaded {
    let path = directory.join(FILE_NAME);
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return Loaded::Nothing,
        Err(error) => return put_aside(&path, &format!("can't be read ({error})")),
    };
    match serde_json::from_slice::<StateDto>(&text).map_err(|error| error.to_string()).and_then(from_dto) {
        Ok(state) if state.node == *node => Loaded::State(state),
        Ok(state) => Loaded::OtherNode(state),
        Err(error) => put_aside(&path, &format!("is not what this agent wrote ({error})")),
    }
}

/// A disk or a process that has too much to do for a moment is asked again.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    for _ in 1..READ_TRIES {
        match std::fs::read(path) {
            Err(error) if !is_absent(&error) => std::thread::sleep(READ_PAUSE),
            read => return read,
        }
    }
    std::fs::read(path)
}

/// The next write would replace it, and somebody may still make sense of it.
fn put_aside(path: &Path, what: &str) -> Loaded {
    let aside = path.with_file_name(ASIDE_NAME);
    let kept = match std::fs::rename(path, &aside) {
        Ok(()) => format!("it was put aside as {}", aside.display()),
        Err(error) => format!("and it can't be put aside ({error})"),
    };
    Loaded::Unreadable(format!("{} {what}; {kept}", path.display()))
}

/// Blocks that this node remembers as its own. Only looks.
///
/// # Errors
/// The file can't be read, or is not what an agent wrote.
pub fn remembered(directory: &Path, node: &NodeName) -> io::Result<Vec<Block>> {
    let path = directory.join(FILE_NAME);
    let named = |error: String| io::Error::other(format!("{}: {error}", path.display()));
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(named(error.to_string())),
    };
    let dto = serde_json::from_slice::<StateDto>(&text).map_err(|error| named(error.to_string()))?;
    let state = from_dto(dto).map_err(named)?;
    Ok(if state.node == *node { state.held.into_keys().collect() } else { Vec::new() })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A crash leaves the old file or the new one.
pub(super) fn save(directory: &Path, state: &State) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut content = serde_json::to_vec_pretty(&to_dto(state))?;
    content.push(b'\n');
    durable::replace(&directory.join(FILE_NAME), &content)
}

/// The node gave up all of its claims.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    match std::fs::remove_file(directory.join(FILE_NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where the state is, and whether the last write of it worked.
#[derive(Debug)]
pub(super) struct StateFile {
    directory: PathBuf,
    saved: Option<State>,
    pub(super) trouble: Option<String>,
}

impl StateFile {
    pub(super) fn new(directory: PathBuf, saved: Option<State>) -> Self {
        Self { directory, saved, trouble: None }
    }

    /// Writes the state if it changed. A failure is a condition: the claims stand in the store all the same.
    pub(super) async fn save(&mut self, state: &State) {
        if self.saved.as_ref() == Some(state) {
            // What could not be written is not wanted any more.
            self.trouble = None;
            return;
        }
        let (directory, copy) = (self.directory.clone(), state.clone());
        let saved = tokio::task::spawn_blocking(move || save(&directory, &copy)).await;
        match saved.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => {
                self.saved = Some(state.clone());
                self.trouble = None;
            }
            Err(error) => {
                let path = self.directory.join(FILE_NAME);
                self.trouble = Some(format!(
                    "{} can't be written ({error}): if the store were lost now, this node would not get its blocks back \
                     after a restart; make the state directory writable",
                    path.display()
                ));
            }
        }
    }
}

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateDto {
    version: u32,
    node: String,
    #[serde(default)]
    held: Vec<HeldDto>,
    #[serde(default)]
    lost: Vec<LostDto>,
    #[serde(default)]
    former: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    given_back: Vec<GivenBackDto>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenBackDto {
    block: String,
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeldDto {
    block: String,
    claimed_at: Timestamp,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LostDto {
    block: String,
    holder: String,
    since: Timestamp,
}

fn to_dto(state: &State) -> StateDto {
    StateDto {
        version: VERSION,
        node: state.node.to_string(),
        held: state
            .held
            .values()
            .map(|claim| HeldDto {
                block: claim.block.to_string(),
                claimed_at: claim.claimed_at,
                unknown: claim.unknown.clone(),
            })
            .collect(),
        lost: state
            .lost
            .values()
            .map(|lost| LostDto {
                block: lost.block.to_string(),
                holder: lost.holder.to_string(),
                since: lost.since,
            })
            .collect(),
        former: state.former.iter().map(ToString::to_string).collect(),
        given_back: state
            .given_back
            .iter()
            .map(|(block, at)| GivenBackDto { block: block.to_string(), at: *at })
            .collect(),
        unknown: state.unknown.clone(),
    }
}

fn from_dto(dto: StateDto) -> Result<State, String> {
    let node: NodeName = dto.node.parse().map_err(|error: crate::node::NodeNameError| error.to_string())?;
    let block = |text: &str| match text.parse() {
        Ok(net) => Ok(Block::new(net)),
        Err(_) => Err(format!("{text:?} is not a block")),
    };
    let mut state = State::new(node.clone());
    for held in dto.held {
        let block = block(&held.block)?;
        let claim =
            Claim { block, holder: Some(node.clone()), claimed_at: held.claimed_at, unknown: held.unknown };
        state.held.insert(block, claim);
    }
    for lost in dto.lost {
        let block = block(&lost.block)?;
        let holder = lost.holder.parse().map_err(|error: crate::node::NodeNameError| error.to_string())?;
        state.lost.insert(block, LostBlock { block, holder, since: lost.since, seen: false });
    }
    for former in &dto.former {
        state.former.push(block(former)?);
    }
    state.former.truncate(MOST_FORMER);
    for given in dto.given_back {
        state.given_back.insert(block(&given.block)?, given.at);
    }
    state.unknown = dto.unknown;
    Ok(state)
}
