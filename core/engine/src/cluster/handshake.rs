//! The handshake of a connection: who connects says what it wants and sends a random challenge; who accepts proves that it knows the job's secret and sends a challenge of its
//! own; who connects proves it too, and hears whether it is welcome. Proofs are HMAC-SHA-256 over all that was said and both challenges, so that one that was heard
//! is of no use for another connection; over TLS they are over what binds them to its session, too (`tls`). Every message has a fixed length. No I/O here.
//!
//! | message | bytes |
//! |---|---|
//! | hello | magic 8, version 4, kind 4, SHA-256 of the job's id 32, attempt 8, plan 8, processes 4, from 4, to 4, system's id 4, challenge 32 |
//! | answer | challenge 32, system's id 4, proof 32 |
//! | proof | 32 |
//! | verdict | 1 |

use super::{Membership, Secret};
use ring::{
    digest,
    hmac::{self, HMAC_SHA256},
};

const MAGIC: [u8; 8] = *b"standpip";
/// Of the handshake and of what follows it. Processes of one job are of one release; this is for a clear end if they are not.
const VERSION: u32 = 1;

/// What a connection begins with that is over TLS: a record of a handshake.
const TLS_HELLO: [u8; 2] = [22, 3];

pub(super) const HELLO: usize = 112;
pub(super) const CHALLENGE: usize = 32;
pub(super) const PROOF: usize = 32;
pub(super) const ANSWER: usize = CHALLENGE + 4 + PROOF;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Timely's.
    Data = 0,
    /// `runtime::peers`.
    Control = 1,
}

/// Who connects, and what for. What all processes agree on is compared as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) kind: Kind,
    job: [u8; 32],
    attempt: u64,
    plan: u64,
    processes: u32,
    pub(super) from: u32,
    to: u32,
    /// The system's id of the process.
    pub(super) id: u32,
    challenge: [u8; CHALLENGE],
}

/// What is said to a process that has proved that it knows the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Welcome = 0,
    OtherJob = 1,
    OtherAttempt = 2,
    OtherPlan = 3,
    OtherNumber = 4,
    NotExpected = 5,
}

impl Verdict {
    pub(super) fn of(byte: u8) -> Option<Self> {
        let all = [Self::Welcome, Self::OtherJob, Self::OtherAttempt, Self::OtherPlan, Self::OtherNumber, Self::NotExpected];
        all.into_iter().find(|verdict| *verdict as u8 == byte)
    }

    /// Why it is not welcome.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Welcome => "it is welcome",
            Self::OtherJob => "it is of another job",
            Self::OtherAttempt => "it is of another start of the job",
            Self::OtherPlan => "its plan is another: the processes have read different pipelines or plugins",
            Self::OtherNumber => "it knows of another number of processes",
            Self::NotExpected => "it is not expected, or is here already",
        }
    }
}

fn digest_of(job_id: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, job_id.as_bytes()).as_ref());
    bytes
}

impl Hello {
    pub(super) fn new(membership: &Membership, kind: Kind, to: u32, challenge: [u8; CHALLENGE]) -> Self {
        Self {
            kind,
            job: digest_of(&membership.job_id),
            attempt: membership.attempt,
            plan: membership.plan.0,
            processes: membership.processes,
            from: membership.process,
            to,
            id: std::process::id(),
            challenge,
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HELLO);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.kind as u32).to_le_bytes());
        bytes.extend_from_slice(&self.job);
        bytes.extend_from_slice(&self.attempt.to_le_bytes());
        bytes.extend_from_slice(&self.plan.to_le_bytes());
        [self.processes, self.from, self.to, self.id].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.extend_from_slice(&self.challenge);
        bytes
    }

    /// From what somebody has sent.
    ///
    /// # Errors
    /// What is wrong with it, in a line for the log.
    pub(super) fn from_bytes(bytes: &[u8; HELLO]) -> Result<Self, &'static str> {
        let mut rest = bytes.as_slice();
        if bytes.starts_with(&TLS_HELLO) {
            return Err("it speaks TLS, and this process does not");
        }
        if take::<8>(&mut rest) != Some(MAGIC) {
            return Err("it does not speak our protocol");
        }
        if word(&mut rest) != Some(VERSION) {
            return Err("it speaks another version of our protocol");
        }
        let kind = match word(&mut rest) {
            Some(0) => Kind::Data,
            Some(1) => Kind::Control,
            _ => return Err("it wants what there is not"),
        };
        let read = |rest: &mut &[u8]| {
            let job = take(rest)?;
            let (attempt, plan) = (u64::from_le_bytes(take(rest)?), u64::from_le_bytes(take(rest)?));
            let (processes, from, to, id) = (word(rest)?, word(rest)?, word(rest)?, word(rest)?);
            Some(Self { kind, job, attempt, plan, processes, from, to, id, challenge: take(rest)? })
        };
        read(&mut rest).ok_or("it has said too little")
    }

    /// Whether a process that has proved to know the secret is one of ours.
    pub(super) fn judge(&self, own: &Membership) -> Verdict {
        if self.job != digest_of(&own.job_id) {
            Verdict::OtherJob
        } else if self.attempt != own.attempt {
            Verdict::OtherAttempt
        } else if self.plan != own.plan.0 {
            Verdict::OtherPlan
        } else if self.processes != own.processes {
            Verdict::OtherNumber
        } else if self.to != own.process {
            Verdict::NotExpected
        } else {
            Verdict::Welcome
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn word(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_le_bytes)
}

/// Which end proves that it knows the secret; a proof of one is none of the other.
#[derive(Clone, Copy)]
enum Side {
    Accepts,
    Connects,
}

fn said(side: Side, hello: &[u8], answered: &[u8]) -> Vec<u8> {
    let label: &[u8] = match side {
        Side::Accepts => b"standpipe accepts\0",
        Side::Connects => b"standpipe connects\0",
    };
    [label, hello, answered].concat()
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(HMAC_SHA256, &secret.0)
}

/// What the accepting end answers to a hello. `hello` is here and below what was said first: the hello, and over TLS what binds it to the session.
pub(super) fn answer(secret: &Secret, hello: &[u8], challenge: [u8; CHALLENGE]) -> Vec<u8> {
    let mut bytes = challenge.to_vec();
    bytes.extend_from_slice(&std::process::id().to_le_bytes());
    let proof = hmac::sign(&key(secret), &said(Side::Accepts, hello, &bytes));
    bytes.extend_from_slice(proof.as_ref());
    bytes
}

/// The system's id of the process that has answered, if it knows the secret.
pub(super) fn check_answer(secret: &Secret, hello: &[u8], answer: &[u8; ANSWER]) -> Option<u32> {
    let (answered, proof) = answer.split_at(CHALLENGE + 4);
    hmac::verify(&key(secret), &said(Side::Accepts, hello, answered), proof).ok()?;
    word(&mut answered.get(CHALLENGE..)?)
}

/// What the connecting end proves.
pub(super) fn proof(secret: &Secret, hello: &[u8], answer: &[u8; ANSWER]) -> Vec<u8> {
    hmac::sign(&key(secret), &said(Side::Connects, hello, &answer[..CHALLENGE + 4])).as_ref().to_vec()
}

/// Whether it does.
pub(super) fn check_proof(secret: &Secret, hello: &[u8], answer: &[u8], proof: &[u8]) -> bool {
    let answered = answer.get(..CHALLENGE + 4).unwrap_or_default();
    hmac::verify(&key(secret), &said(Side::Connects, hello, answered), proof).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use standpipe_pipeline::plan::PlanHash;

    fn membership(process: u32, secret: &Secret) -> Membership {
        Membership { job_id: "ab".repeat(16), attempt: 2, plan: PlanHash(7), process, processes: 3, secret: secret.clone(), tls: None }
    }

    #[test]
    fn a_hello_crosses_as_bytes() {
        let hello = Hello::new(&membership(2, &Secret([1; 32])), Kind::Control, 0, [9; 32]);
        let bytes: [u8; HELLO] = hello.to_bytes().try_into().unwrap();
        assert_eq!(Hello::from_bytes(&bytes), Ok(hello));
        let mut other = bytes;
        other[0] = b'S';
        assert_eq!(Hello::from_bytes(&other), Err("it does not speak our protocol"));
        other[..2].copy_from_slice(&[22, 3]);
        assert_eq!(Hello::from_bytes(&other), Err("it speaks TLS, and this process does not"));
        other = bytes;
        other[8] = 99;
        assert_eq!(Hello::from_bytes(&other), Err("it speaks another version of our protocol"));
        other = bytes;
        other[12] = 7;
        assert_eq!(Hello::from_bytes(&other), Err("it wants what there is not"));
    }

    proptest::proptest! {
        #![proptest_config(standpipe_hostile::cases(2_000))]

        /// A hello of others is refused or judged, and never welcome with another job, start, plan or number.
        #[test]
        fn a_hello_that_was_changed(changes in standpipe_hostile::bytes::changes(&["standpip"]), noise in proptest::arbitrary::any::<[u8; 32]>()) {
            let own = membership(0, &Secret([1; 32]));
            let hello = Hello::new(&membership(2, &Secret([1; 32])), Kind::Control, 0, [9; 32]).to_bytes();
            let mut changed = standpipe_hostile::bytes::changed(&hello, &changes);
            changed.resize(HELLO, 0);
            let bytes: [u8; HELLO] = changed.try_into().unwrap();
            if let Ok(found) = Hello::from_bytes(&bytes) {
                // What is judged is between the kind of connection and the number of processes, and the receiver.
                let is_same = bytes[16..68] == hello[16..68] && bytes[72..76] == hello[72..76];
                proptest::prop_assert_eq!(found.judge(&own) == Verdict::Welcome, is_same);
            }
            let mut answer = answer(&Secret([1; 32]), &hello, noise);
            answer[0] ^= 1;
            let answer: [u8; ANSWER] = answer.try_into().unwrap();
            proptest::prop_assert!(check_answer(&Secret([1; 32]), &hello, &answer).is_none());
            proptest::prop_assert!(!check_proof(&Secret([1; 32]), &hello, &answer, &noise));
        }
    }

    #[test]
    fn both_ends_prove_that_they_know_the_secret() {
        let (ours, other) = (Secret([1; 32]), Secret([2; 32]));
        let hello = Hello::new(&membership(1, &ours), Kind::Data, 0, [3; 32]).to_bytes();
        let said: [u8; ANSWER] = answer(&ours, &hello, [4; 32]).try_into().unwrap();
        assert_eq!(check_answer(&ours, &hello, &said), Some(std::process::id()));
        assert_eq!(check_answer(&other, &hello, &said), None);
        let proved = proof(&ours, &hello, &said);
        assert!(check_proof(&ours, &hello, &said, &proved));
        assert!(!check_proof(&ours, &hello, &said, &proof(&other, &hello, &said)));
        assert!(!check_proof(&ours, &hello, &said, &said[CHALLENGE + 4..]), "the proof of one end is none of the other");
        // Heard by one in the middle, whose TLS session with either end is another.
        let bound = [hello.as_slice(), &[7; 32]].concat();
        assert_eq!(check_answer(&ours, &bound, &said), None);
        assert!(!check_proof(&ours, &bound, &said, &proved));
        // Heard on another connection: its challenge was another.
        let again: [u8; ANSWER] = answer(&ours, &hello, [5; 32]).try_into().unwrap();
        assert!(!check_proof(&ours, &hello, &again, &proved));
    }

    #[test]
    fn who_is_not_welcome_hears_why() {
        let secret = Secret([1; 32]);
        let own = membership(0, &secret);
        let verdict = |other: Membership, to| Hello::new(&other, Kind::Data, to, [0; 32]).judge(&own);
        let peer = || membership(1, &secret);
        assert_eq!(verdict(peer(), 0), Verdict::Welcome);
        assert_eq!(verdict(peer(), 2), Verdict::NotExpected);
        assert_eq!(verdict(Membership { job_id: "x".to_owned(), ..peer() }, 0), Verdict::OtherJob);
        assert_eq!(verdict(Membership { attempt: 1, ..peer() }, 0), Verdict::OtherAttempt);
        assert_eq!(verdict(Membership { plan: PlanHash(8), ..peer() }, 0), Verdict::OtherPlan);
        assert_eq!(verdict(Membership { processes: 2, ..peer() }, 0), Verdict::OtherNumber);
        assert_eq!(Verdict::of(3), Some(Verdict::OtherPlan));
        assert_eq!(Verdict::of(99), None);
    }
}
