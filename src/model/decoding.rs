//! Which token comes next: greedy and beam search as pure state machines over the model's best candidates.
//!
//! Source: `_sample` with `do_sample=False` and `_beam_search` of transformers 5.24 (`generation/utils.py`), for one
//! prompt at a time: a prompt that is done leaves the batch, which changes no result.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Score that transformers gives to beams that do not exist yet.
const ABSENT: f32 = -1.0e9;

/// How answers are searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decoding {
    /// The search.
    pub strategy: Strategy,
    /// Upper bound of the generated tokens, the end token included.
    pub max_new_tokens: usize,
}

/// The search itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// The most probable token at each step.
    Greedy,
    /// The best of several continuations kept side by side.
    Beam(Beam),
}

/// Settings of beam search, in transformers' terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beam {
    /// Continuations kept side by side.
    pub beams: usize,
    /// Exponent of the length that scores are divided by.
    pub length_penalty: f32,
    /// When to stop looking.
    pub early_stopping: EarlyStopping,
}

/// `early_stopping` of transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyStopping {
    /// `True`: as soon as as many answers as beams are finished.
    Always,
    /// `False`: when the best running beam, at its present length, is no better than the worst finished answer.
    Heuristic,
    /// `"never"`: when no running beam can become better than the worst finished answer.
    Never,
}

impl FromStr for Strategy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let beams = text.strip_prefix("beam:").and_then(|count| count.parse().ok()).filter(|count| *count >= 1);
        match (text, beams) {
            // One beam is greedy search in transformers as well.
            ("greedy", _) | (_, Some(1)) => Ok(Self::Greedy),
            (_, Some(beams)) => {
                Ok(Self::Beam(Beam { beams, length_penalty: 1.0, early_stopping: EarlyStopping::Heuristic }))
            }
            _ => Err(Error::input(format!("unknown decoding `{text}`")).hint("known: greedy, beam:<number of beams>")),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Greedy => f.write_str("greedy"),
            Self::Beam(beam) => {
                let stop = match beam.early_stopping {
                    EarlyStopping::Always => "true",
                    EarlyStopping::Heuristic => "false",
                    EarlyStopping::Never => "never",
                };
                write!(f, "beam:{} length_penalty={} early_stopping={stop}", beam.beams, beam.length_penalty)
            }
        }
    }
}

impl Strategy {
    /// How many candidates the model has to name for each row, so that enough are left when the best ones all end
    /// with one of `end_tokens` tokens.
    pub fn candidates(&self, end_tokens: usize) -> usize {
        match self {
            Self::Greedy => 1,
            Self::Beam(beam) => beam.beams.saturating_mul((1 + end_tokens).max(2)),
        }
    }
}

/// The best next tokens of one row, best first, with their log-probabilities.
#[derive(Debug, Clone, Copy)]
pub struct Candidates<'a> {
    /// Token numbers.
    pub tokens: &'a [i64],
    /// Log-probabilities.
    pub scores: &'a [f32],
}

/// A row to be computed next: the row it continues, counted within the search, and its new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continuation {
    /// Which of the search's rows of the last step it continues.
    pub parent: usize,
    /// The token to feed.
    pub token: u32,
}

/// The state of one prompt's search.
#[derive(Debug)]
pub enum Search {
    /// Greedy search.
    Greedy(GreedySearch),
    /// Beam search.
    Beam(BeamSearch),
}

impl Search {
    /// The start of a search; the first step has one row, the prompt.
    pub fn new(decoding: &Decoding, end_tokens: &[u32]) -> Self {
        match decoding.strategy {
            Strategy::Greedy => Self::Greedy(GreedySearch {
                tokens: Vec::new(),
                limit: decoding.max_new_tokens,
                end: end_tokens.to_vec(),
            }),
            Strategy::Beam(beam) => Self::Beam(BeamSearch::new(beam, decoding.max_new_tokens, end_tokens)),
        }
    }

    /// Takes the candidates of each row and says which rows to compute next; none when the search is over.
    pub fn advance(&mut self, rows: &[Candidates]) -> Vec<Continuation> {
        match self {
            Self::Greedy(search) => search.advance(rows),
            Self::Beam(search) => search.advance(rows),
        }
    }

    /// The generated tokens, with the end token if one was reached.
    pub fn into_tokens(self) -> Vec<u32> {
        match self {
            Self::Greedy(search) => search.tokens,
            Self::Beam(search) => search.into_best(),
        }
    }
}

/// Takes the most probable token until the end.
#[derive(Debug)]
pub struct GreedySearch {
    tokens: Vec<u32>,
    limit: usize,
    end: Vec<u32>,
}

impl GreedySearch {
    fn advance(&mut self, rows: &[Candidates]) -> Vec<Continuation> {
        let token = rows[0].tokens[0] as u32;
        self.tokens.push(token);
        if self.end.contains(&token) || self.tokens.len() >= self.limit {
            return Vec::new();
        }
        vec![Continuation { parent: 0, token }]
    }
}

/// A finished or running answer.
#[derive(Debug, Clone)]
struct Hypothesis {
    tokens: Vec<u32>,
    score: f32,
    /// Whether it really ended; others only fill places.
    finished: bool,
}

/// A candidate continuation of one step.
struct Proposal {
    parent: usize,
    token: u32,
    score: f32,
    ends: bool,
}

/// Keeps several continuations.
#[derive(Debug)]
pub struct BeamSearch {
    settings: Beam,
    limit: usize,
    end: Vec<u32>,
    /// Running answers, best first. Only the first exists before the first step.
    running: Vec<Hypothesis>,
    /// Best finished answers, best first.
    finished: Vec<Hypothesis>,
    /// Steps done.
    length: usize,
    can_improve: bool,
}

impl BeamSearch {
    fn new(settings: Beam, limit: usize, end: &[u32]) -> Self {
        let start = Hypothesis { tokens: Vec::new(), score: 0.0, finished: false };
        let filler = Hypothesis { tokens: Vec::new(), score: ABSENT, finished: false };
        let finished = vec![filler; settings.beams];
        Self { settings, limit, end: end.to_vec(), running: vec![start], finished, length: 0, can_improve: true }
    }

    fn advance(&mut self, rows: &[Candidates]) -> Vec<Continuation> {
        let proposals = self.proposals(rows);
        let all_end = proposals.iter().all(|proposal| proposal.ends);
        let (next, continuations) = self.continue_with(&proposals);
        self.finish_with(&proposals);
        self.running = next;
        self.length += 1;
        self.update_outlook();
        let full = self.finished.iter().all(|hypothesis| hypothesis.finished);
        let stop_early = self.settings.early_stopping == EarlyStopping::Always && full;
        if !self.can_improve || stop_early || all_end { Vec::new() } else { continuations }
    }

    /// The best continuations over all rows, best first; at equal scores the earlier row, then the
    /// earlier candidate.
    fn proposals(&self, rows: &[Candidates]) -> Vec<Proposal> {
        let last_step = self.length + 1 >= self.limit;
        let mut proposals = Vec::new();
        for (parent, row) in rows.iter().enumerate() {
            for (token, score) in row.tokens.iter().zip(row.scores) {
                let token = *token as u32;
                let ends = last_step || self.end.contains(&token);
                proposals.push(Proposal { parent, token, score: score + self.running[parent].score, ends });
            }
        }
        proposals.sort_by(|a, b| b.score.total_cmp(&a.score));
        proposals.truncate(Strategy::Beam(self.settings).candidates(self.end.len()));
        proposals
    }

    /// The best `beams` that go on, and how they continue the running ones.
    fn continue_with(&self, proposals: &[Proposal]) -> (Vec<Hypothesis>, Vec<Continuation>) {
        let mut order: Vec<(f32, &Proposal)> = proposals
            .iter()
            .map(|proposal| (proposal.score + if proposal.ends { ABSENT } else { 0.0 }, proposal))
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        order.truncate(self.settings.beams);
        let next = order.iter().map(|(score, proposal)| Hypothesis {
            tokens: self.extended(proposal),
            score: *score,
            finished: false,
        });
        let next = next.collect();
        (
            next,
            order.iter().map(|(_, proposal)| Continuation { parent: proposal.parent, token: proposal.token }).collect(),
        )
    }

    /// Merges the answers that end in this step into the finished ones. Only those among the best `beams` count.
    fn finish_with(&mut self, proposals: &[Proposal]) {
        let full = self.finished.iter().all(|hypothesis| hypothesis.finished);
        let closed = full && self.settings.early_stopping == EarlyStopping::Always;
        let divisor = (self.length as f32 + 1.0).powf(self.settings.length_penalty);
        let mut merged = std::mem::take(&mut self.finished);
        for (rank, proposal) in proposals.iter().enumerate() {
            let finished = proposal.ends && rank < self.settings.beams;
            let mut score = proposal.score / divisor;
            for out_of_question in [closed, !self.can_improve, !finished] {
                if out_of_question {
                    score += ABSENT;
                }
            }
            merged.push(Hypothesis { tokens: self.extended(proposal), score, finished });
        }
        merged.sort_by(|a, b| b.score.total_cmp(&a.score));
        merged.truncate(self.settings.beams);
        self.finished = merged;
    }

    /// Whether a running beam may still beat the worst finished answer; once it may not, it never may again.
    fn update_outlook(&mut self) {
        let never = self.settings.early_stopping == EarlyStopping::Never && self.settings.length_penalty > 0.0;
        let length = if never { self.limit } else { self.length } as f32;
        let best = self.running.first().map_or(ABSENT, |beam| beam.score) / length.powf(self.settings.length_penalty);
        let lowest = self.finished.iter().map(|hypothesis| hypothesis.score).fold(f32::INFINITY, f32::min);
        self.can_improve &=
            self.finished.iter().any(|hypothesis| best > if hypothesis.finished { lowest } else { ABSENT });
    }

    fn extended(&self, proposal: &Proposal) -> Vec<u32> {
        let mut tokens = self.running[proposal.parent].tokens.clone();
        tokens.push(proposal.token);
        tokens
    }

    fn into_best(self) -> Vec<u32> {
        self.finished.into_iter().next().map(|hypothesis| hypothesis.tokens).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(strategy: Strategy, limit: usize, model: impl Fn(&[u32]) -> (Vec<i64>, Vec<f32>)) -> Vec<u32> {
        let decoding = Decoding { strategy, max_new_tokens: limit };
        let mut search = Search::new(&decoding, &[1]);
        let mut rows: Vec<Vec<u32>> = vec![Vec::new()];
        loop {
            let answers: Vec<_> = rows.iter().map(|row| model(row)).collect();
            let candidates: Vec<_> = answers.iter().map(|(tokens, scores)| Candidates { tokens, scores }).collect();
            let next = search.advance(&candidates);
            if next.is_empty() {
                return search.into_tokens();
            }
            rows = next
                .iter()
                .map(|continuation| [rows[continuation.parent].as_slice(), &[continuation.token]].concat())
                .collect();
        }
    }

    /// Token 2 is likelier at first, but token 3 leads to a certain end.
    fn garden_path(row: &[u32]) -> (Vec<i64>, Vec<f32>) {
        let p = |values: [f32; 4]| values.iter().map(|value| value.ln()).collect();
        match row {
            [] => (vec![2, 3, 1, 0], p([0.55, 0.43, 0.01, 0.01])),
            [3] => (vec![1, 0, 2, 3], p([0.97, 0.01, 0.01, 0.01])),
            _ => (vec![0, 2, 3, 1], p([0.3, 0.25, 0.25, 0.2])),
        }
    }

    #[test]
    fn greedy_follows_the_best_token_and_beams_look_ahead() {
        assert_eq!(run(Strategy::Greedy, 3, garden_path), [2, 0, 0]);
        assert_eq!(run("beam:2".parse().unwrap(), 3, garden_path), [3, 1]);
    }

    #[test]
    fn one_beam_is_greedy() {
        assert_eq!("beam:1".parse::<Strategy>().unwrap(), Strategy::Greedy);
        assert!("beam:0".parse::<Strategy>().is_err());
    }
}
