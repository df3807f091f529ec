//! What is said over the socket: JSON, described in `docs/socket.md`. Whatever comes in is bounded before it is parsed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    attribution::ledger::IdlePolicy,
    interval::{Identity, SwitchCost},
    phases::{OpenPhases, Request, Verb},
};

/// Version of the interface: the first part of every path.
pub const VERSION: &str = "v1";

/// Shortest interval of a recording, and the step of its length. Recordings of the same length share their borders.
pub const INTERVAL_STEP_MS: u64 = 100;

/// Longest interval of a recording.
pub const LONGEST_INTERVAL_MS: u64 = 3_600_000;

/// Process rows of a line at most.
pub const MOST_ROWS: u32 = 10_000;

/// Values of one filter at most, and bytes of one.
pub const MOST_VALUES: usize = 64;
const LONGEST_VALUE: usize = 4096;

/// What is followed, and listed then: a word or a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Follow {
    /// The caller and its descendants: `caller`.
    Caller,
    /// The descendants of the caller, without itself: `children`.
    Children,
    /// This process and its descendants.
    Pid(u32),
}

impl From<Follow> for Value {
    fn from(follow: Follow) -> Self {
        match follow {
            Follow::Caller => "caller".into(),
            Follow::Children => "children".into(),
            Follow::Pid(pid) => pid.into(),
        }
    }
}

impl TryFrom<Value> for Follow {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let pid = value.as_u64().and_then(|pid| u32::try_from(pid).ok());
        match (value.as_str(), pid) {
            (Some("caller"), _) => Ok(Self::Caller),
            (Some("children"), _) => Ok(Self::Children),
            (_, Some(pid)) => Ok(Self::Pid(pid)),
            _ => Err("follow is a list of `caller`, `children` and pids".to_owned()),
        }
    }
}

/// What a recording is asked for: the body of `POST /v1/recordings`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordingRequest {
    /// Length of an interval; without it, that of the agent.
    pub interval_ms: Option<u64>,
    /// Which processes are listed; without any, all that the caller may see.
    pub follow: Vec<Follow>,
    /// Paths of cgroups, from the root of the v2 tree, with those below them.
    pub cgroup: Vec<String>,
    /// Regular expressions for names of processes.
    pub comm: Vec<String>,
    /// Real user ids. Who may see one user only may name that one only.
    pub uid: Vec<u32>,
    /// Jobs.
    pub job: Vec<String>,
    /// Containers, by name, id, or the beginning of an id.
    pub container: Vec<String>,
    /// Pods, as `NAMESPACE/NAME`.
    pub pod: Vec<String>,
    /// Units.
    pub unit: Vec<String>,
    /// Tenants, as `KIND:ID`.
    pub tenant: Vec<String>,
    /// Process rows of a line at most; the smallest are merged by cgroup.
    pub max_rows: Option<u32>,
    /// Phases that are open at the beginning: of a recording that goes on after the agent was started again.
    pub phases: Option<OpenPhases>,
}

impl RecordingRequest {
    /// What is wrong with it, a sentence.
    pub fn wrong(&self) -> Option<String> {
        if let Some(ms) = self.interval_ms
            && (ms % INTERVAL_STEP_MS != 0 || !(INTERVAL_STEP_MS..=LONGEST_INTERVAL_MS).contains(&ms))
        {
            return Some(format!(
                "interval_ms is {ms}; it has to be a multiple of {INTERVAL_STEP_MS}, from {INTERVAL_STEP_MS} to \
                 {LONGEST_INTERVAL_MS}"
            ));
        }
        if let Some(rows) = self.max_rows
            && !(1..=MOST_ROWS).contains(&rows)
        {
            return Some(format!("max_rows is {rows}; it has to be from 1 to {MOST_ROWS}"));
        }
        if self.follow.len() > MOST_VALUES || self.follow.contains(&Follow::Pid(0)) {
            return Some(format!(
                "follow is a list of at most {MOST_VALUES} pids, none of them 0"
            ));
        }
        if self.uid.len() > MOST_VALUES {
            return Some(format!("uid has {} values, of at most {MOST_VALUES}", self.uid.len()));
        }
        let filters = [
            ("cgroup", &self.cgroup),
            ("comm", &self.comm),
            ("job", &self.job),
            ("container", &self.container),
            ("pod", &self.pod),
            ("unit", &self.unit),
            ("tenant", &self.tenant),
        ];
        for (name, values) in filters {
            if values.len() > MOST_VALUES {
                return Some(format!("{name} has {} values, of at most {MOST_VALUES}", values.len()));
            }
            if values.iter().any(|value| value.len() > LONGEST_VALUE) {
                return Some(format!("a value of {name} is longer than {LONGEST_VALUE} bytes"));
            }
        }
        if let Some(path) = self.cgroup.iter().find(|path| !path.starts_with('/')) {
            return Some(format!(
                "`{}` is not a path of a cgroup from the root of the tree, as in /train.slice",
                path.escape_debug()
            ));
        }
        None
    }
}

/// What is the same for a whole recording: the first line of the stream, in `recording`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingFacts {
    /// Names the recording in further requests.
    pub id: u64,
    /// Version of dlpm that measures.
    pub version: String,
    /// CLOCK_MONOTONIC at which the first interval begins.
    pub begin_ns: u64,
    /// Length of an interval.
    pub interval_ms: u64,
    /// Whose processes can be listed; `None`: everybody's.
    pub uid: Option<u32>,
    /// What is the same for all recordings.
    #[serde(flatten)]
    pub machine: MachineFacts,
}

/// What is known of the machine and of how it is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// Host name.
    pub node_id: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Random id of this boot.
    pub boot_id: Option<String>,
    /// CPU model, where the system says it.
    pub cpu_model: Option<String>,
    /// The GPUs that are measured, in words.
    pub gpus: Vec<String>,
    /// What tells processes apart.
    pub identity: Identity,
    /// Policy for idle energy.
    pub idle_policy: IdlePolicy,
    /// Whether the operator named it; otherwise it is what this machine allows.
    pub idle_policy_by_operator: bool,
    /// Weight of a nanosecond that the sibling shared, in thousandths.
    pub smt_weight_permille: u32,
    /// Power of the idle machine in mW by leaf.
    pub idle_floors_mw: BTreeMap<String, u64>,
    /// What a reader of the log has to know of this machine, a sentence each.
    pub notes: Vec<String>,
}

/// The last line of a stream, in `ended`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingEnd {
    /// Why it ended.
    pub reason: EndReason,
    /// What dlpm costs in each context switch, if it is known.
    pub switch_cost: Option<SwitchCost>,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// It was asked to.
    Asked,
    /// The agent stops.
    AgentStops,
}

/// A line of a stream that is not a line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamLine {
    /// The first.
    Recording(Box<RecordingFacts>),
    /// The last.
    Ended(RecordingEnd),
}

/// The body of `POST /v1/recordings/ID/marks`: an edge of a phase, or nothing for a border alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MarkRequest {
    /// The phase before ends, and this one begins.
    pub mark: Option<String>,
    /// This one begins.
    pub begin: Option<String>,
    /// This one ends.
    pub end: Option<String>,
}

impl MarkRequest {
    /// What it asks of the phases; `None` for a border alone.
    ///
    /// # Errors
    ///
    /// A sentence, where the label cannot be one, or there are several.
    pub fn request(&self) -> Result<Option<Request>, String> {
        let labels = [
            (Verb::Mark, &self.mark),
            (Verb::Begin, &self.begin),
            (Verb::End, &self.end),
        ];
        let mut requests = labels
            .into_iter()
            .filter_map(|(verb, label)| Some(Request::new(verb, label.as_deref()?)));
        match (requests.next(), requests.next()) {
            (_, Some(_)) => Err("a mark has one of `mark`, `begin` and `end`".to_owned()),
            (request, None) => request.transpose(),
        }
    }
}

/// The answer to a mark, and to the end of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BorderAnswer {
    /// Number that the interval after the border has in this recording.
    pub seq: u64,
    /// CLOCK_MONOTONIC of the border.
    pub at_ns: u64,
}

/// Why something is refused: the body of every status that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A sentence that names the next step.
    pub error: String,
}

/// The answer to `GET /v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Version of dlpm.
    pub version: String,
    /// Length of the agent's own intervals.
    pub interval_ms: u64,
    /// The caller, as the kernel names it.
    pub uid: u32,
    /// Whether the caller may see everybody's processes.
    pub sees_all: bool,
    /// What is known of the machine.
    pub machine: MachineFacts,
}

/// The answer to `GET /v1/jobs/ID`: what is known of a job that runs, or has ended a short while ago.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAnswer {
    /// Name of the node.
    pub node_id: String,
    /// Everything until this CLOCK_MONOTONIC is counted; 0 before the first interval.
    pub end_ns: u64,
    /// The same by the wall clock, ns since 1970.
    pub end_unix_ns: i64,
    /// The job and what is inside of it, as lines of `finished.jsonl`: what each used in the life that is not over. One that
    /// has ended (`ended`) is a line there, and has nothing here.
    pub tenants: Vec<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<RecordingRequest, String> {
        let request: RecordingRequest = serde_json::from_str(text).map_err(|error| error.to_string())?;
        request.wrong().map_or(Ok(request), Err)
    }

    #[test]
    fn requests_are_read_and_bounded() {
        assert_eq!(parsed("{}").unwrap(), RecordingRequest::default());
        assert_eq!(
            parsed(r#"{"follow":["caller","children",7]}"#).unwrap().follow,
            [Follow::Caller, Follow::Children, Follow::Pid(7)]
        );
        for (text, said) in [
            (r#"{"interval_ms":150}"#, "multiple of 100"),
            (r#"{"interval_ms":0}"#, "multiple of 100"),
            (r#"{"interval_ms":3600100}"#, "multiple of 100"),
            (r#"{"max_rows":0}"#, "max_rows"),
            (r#"{"follow":[0]}"#, "pids"),
            (r#"{"follow":["mine"]}"#, "follow"),
            (r#"{"cgroup":["train.slice"]}"#, "path of a cgroup"),
            (r#"{"who":"me"}"#, "unknown field `who`"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let many = serde_json::json!({"comm": vec!["x"; 65]}).to_string();
        assert!(parsed(&many).unwrap_err().contains("65 values"));
        let long = serde_json::json!({"comm": ["x".repeat(5000)]}).to_string();
        assert!(parsed(&long).unwrap_err().contains("longer"));
    }

    #[test]
    fn a_mark_has_one_edge_or_none() {
        let mark = |text: &str| serde_json::from_str::<MarkRequest>(text).unwrap().request();
        assert_eq!(mark("{}"), Ok(None));
        assert_eq!(
            mark(r#"{"begin":"epoch 1"}"#).unwrap().unwrap().to_string(),
            "begin epoch 1"
        );
        assert!(mark(r#"{"begin":"a","end":"b"}"#).unwrap_err().contains("one of"));
        assert!(mark(r#"{"end":" "}"#).unwrap_err().contains("is not a label"));
    }

    #[test]
    fn lines_of_a_stream_that_are_not_of_a_log_have_one_key() {
        let ended = StreamLine::Ended(RecordingEnd {
            reason: EndReason::Asked,
            switch_cost: None,
        });
        let text = serde_json::to_string(&ended).unwrap();
        assert_eq!(text, r#"{"ended":{"reason":"asked","switch_cost":null}}"#);
        assert_eq!(serde_json::from_str::<StreamLine>(&text).unwrap(), ended);
    }
}
