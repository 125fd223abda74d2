//! The job: scans shards or documents once, then weighs and scores what was spilled.

use std::{ops::Range, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    items::{BenchmarkItems, Role},
    rarity::Rarity,
    score::{Match, Scorer},
    spill::{MAX_GAP, TextScanner, each_text},
};
use crate::{
    Error, Result,
    count::{DocumentDecoder, in_order},
    io::{GrowingFile, Mapped, Scratch, check_mapped},
    progress::Progress,
    read::{BadRecordList, Block, Rules, ShardSummary, Step, map_blocks},
    tokens::{Span, TokenSource, work_items},
};

/// Documents listed for each part, the first ones in reading order.
pub const MAX_LISTED: u64 = 1000;

/// The configuration of a job.
#[derive(Debug, Clone)]
pub struct ContaminationConfig {
    /// Least share of a part's weight for a match, above 0 and at most 1.
    pub threshold: f64,
    /// Most words between two n-grams of one region.
    pub max_gap: usize,
    /// Number of threads. The result does not depend on it.
    pub n_threads: usize,
    /// The scratch folder.
    pub folder: PathBuf,
    /// What the job is: only the same job resumes its work.
    pub job: String,
    /// Whether work of another job in the folder is discarded.
    pub discard: bool,
    /// Whether the ranges of all contaminated bytes are listed, of which each takes 32 bytes of memory.
    pub lists_bytes: bool,
}

/// What was found.
#[derive(Debug)]
pub struct Contamination {
    /// Matches by part and then in reading order, at most [`MAX_LISTED`] of each part.
    pub matches: Vec<Match>,
    /// By part.
    pub parts: Vec<PartSummary>,
    /// The bytes of all passages and questions in all documents, in reading order, if they are listed.
    pub contaminated: Vec<ContaminatedBytes>,
    /// The totals.
    pub summary: ContaminationSummary,
}

impl Contamination {
    fn with_shards(mut self, shards: Vec<SearchedShard>) -> Self {
        self.summary.shards = shards;
        self
    }
}

/// Consecutive bytes of a document that passages or questions have. Those of a document do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContaminatedBytes {
    /// Number of the shard; 0 if the documents are not those of shards.
    pub shard: u32,
    /// The record of the shard, or the document.
    pub document: u64,
    /// The bytes of its text.
    pub bytes: Range<u64>,
}

/// What is known of a part, and how many documents have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartSummary {
    /// Words of the part.
    pub n_words: u64,
    /// Distinct n-grams.
    pub n_grams: u64,
    /// Their weight together.
    pub weight: f64,
    /// Whether they are rare enough to claim anything. A part without n-grams is not.
    pub is_telling: bool,
    /// Documents with a match.
    pub n_documents: u64,
}

/// Totals of a job.
#[derive(Debug, Serialize)]
pub struct ContaminationSummary {
    /// Documents, empty ones included; of rows, what end-of-document tokens separate.
    pub n_documents: u64,
    /// Distinct n-grams of all items.
    pub n_grams: u64,
    /// Those that occur in a document.
    pub n_found_grams: u64,
    /// Documents with an n-gram of an item.
    pub n_candidates: u64,
    /// By shard; none for tokens.
    pub shards: Vec<SearchedShard>,
}

/// Figures of a shard that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchedShard {
    /// The path as given.
    pub path: String,
    /// Documents, empty ones included.
    pub n_documents: u64,
    /// Documents with an n-gram of an item.
    pub n_candidates: u64,
    /// Bad records, which were skipped.
    pub bad_records: BadRecordList,
    /// Size, checksum and records.
    #[serde(flatten)]
    pub summary: ShardSummary,
}

/// The state of a job, which is saved after each shard.
#[derive(Debug, Default, Serialize, Deserialize)]
struct ScanState {
    job: String,
    shards: Vec<SearchedShard>,
}

/// Documents and spilled texts of a block or a work item.
#[derive(Debug, Default)]
struct Scanned {
    n_documents: u64,
    n_candidates: u64,
    spilled: Vec<u8>,
}

/// The name of the file with the texts of a shard.
fn texts_name(shard: usize) -> String {
    format!("texts-{shard:06}")
}

/// Finds the items in the documents of shards, or resumes the job. `progress` advances by compressed bytes.
///
/// The result is the same for any number of threads and any interruption.
///
/// # Errors
/// A setting is out of range; a shard cannot be read, is damaged, or has a bad record that the rules refuse; the
/// folder has work of another job; the file system fails; or a stop.
pub fn find_in_shards(
    items: &BenchmarkItems,
    shards: &[PathBuf],
    rules: &Rules,
    config: &ContaminationConfig,
    progress: &Progress,
) -> Result<Contamination> {
    check_config(config)?;
    let may_resume =
        |state: &ScanState| state.job == config.job && state.shards.len() <= shards.len();
    let (mut scratch, saved) = Scratch::open(&config.folder, config.discard, progress, may_resume)?;
    let mut state = saved.unwrap_or_else(|| ScanState {
        job: config.job.clone(),
        ..ScanState::default()
    });
    scratch.declare_inputs(shards);
    for shard in &state.shards {
        progress.advance(shard.summary.bytes)?;
    }
    let first = state.shards.len();
    let workers = (0..config.n_threads.max(1)).map(|_| TextScanner::new(items));
    let mut open: Option<OpenShard> = None;
    map_blocks(
        shards,
        rules,
        first,
        workers.collect(),
        progress,
        scan_block,
        |step| match step {
            Step::Block((scanned, bad)) => {
                let shard = open_shard(&mut open, state.shards.len(), &mut scratch)?;
                shard.n_documents += scanned.n_documents;
                shard.n_candidates += scanned.n_candidates;
                shard.bad_records.append(bad);
                shard.texts.push(&scanned.spilled)
            }
            Step::EndOfShard(number, summary) => {
                open_shard(&mut open, number, &mut scratch)?;
                let Some(mut shard) = open.take() else {
                    return Ok(());
                };
                shard.texts.finish(&mut scratch)?;
                scratch.use_input(&shards[number], &summary.sha256);
                state.shards.push(SearchedShard {
                    path: shards[number].to_string_lossy().into_owned(),
                    n_documents: shard.n_documents,
                    n_candidates: shard.n_candidates,
                    bad_records: shard.bad_records,
                    summary,
                });
                scratch.save(&state)
            }
        },
    )?;
    let n_documents = state.shards.iter().map(|shard| shard.n_documents).sum();
    let n_files = state.shards.len();
    let found = weigh_and_score(items, &scratch, n_files, n_documents, config, progress)?;
    Ok(found.with_shards(state.shards))
}

/// The unfinished file of a shard, and its counts so far.
struct OpenShard {
    texts: GrowingFile,
    n_documents: u64,
    n_candidates: u64,
    bad_records: BadRecordList,
}

fn open_shard<'a>(
    open: &'a mut Option<OpenShard>,
    number: usize,
    scratch: &mut Scratch,
) -> Result<&'a mut OpenShard> {
    let shard = match open.take() {
        Some(shard) => shard,
        None => OpenShard {
            texts: scratch.grow(&texts_name(number))?,
            n_documents: 0,
            n_candidates: 0,
            bad_records: BadRecordList::default(),
        },
    };
    Ok(open.insert(shard))
}

fn scan_block(scanner: &mut TextScanner<'_>, block: &Block) -> Result<(Scanned, BadRecordList)> {
    let mut scanned = Scanned::default();
    let bad = block.each_document(|position, document| {
        scanned.n_documents += 1;
        let text = document.text.as_bytes();
        let is_candidate = scanner.scan(position.record, 0, text, &mut scanned.spilled);
        scanned.n_candidates += u64::from(is_candidate);
        Ok(())
    })?;
    Ok((scanned, bad))
}

/// Finds the items in the decoded documents of a source. The end-of-document token separates texts wherever it is: the
/// rows of an order may hold several documents. `progress` advances by tokens.
///
/// # Errors
/// A setting is out of range, the source cannot be read, the folder has work of another job, the file system fails, or
/// a stop.
pub fn find_in_documents<'a, S: TokenSource + ?Sized>(
    items: &'a BenchmarkItems,
    source: &S,
    decoder: DocumentDecoder<'_>,
    config: &ContaminationConfig,
    progress: &Progress,
) -> Result<Contamination> {
    check_config(config)?;
    // No checksum of the tokens is computed on the way, by which a later run could know that they are the same.
    let never = |_: &ScanState| false;
    let (mut scratch, _) = Scratch::open(&config.folder, config.discard, progress, never)?;
    let firsts = work_items(source)?;
    let work = |number: usize, worker: &mut Option<(TextScanner<'a>, Vec<u8>)>| {
        let (scanner, buffer) = worker.get_or_insert_with(|| (TextScanner::new(items), Vec::new()));
        let (mut scanned, mut n_tokens) = (Scanned::default(), 0);
        for document in firsts[number]..firsts[number + 1] {
            let tokens = document_tokens(source, document)?;
            n_tokens += tokens.len() as u64;
            scan_document(document, &tokens, decoder, (scanner, buffer), &mut scanned)?;
        }
        progress.advance(n_tokens)?;
        Ok(scanned)
    };
    let mut texts = scratch.grow(&texts_name(0))?;
    let mut n_documents = 0;
    in_order(firsts.len() - 1, config.n_threads, work, |scanned| {
        n_documents += scanned.n_documents;
        texts.push(&scanned.spilled)
    })?;
    texts.finish(&mut scratch)?;
    weigh_and_score(items, &scratch, 1, n_documents, config, progress)
}

/// All tokens of a document.
pub(super) fn document_tokens<S: TokenSource + ?Sized>(
    source: &S,
    document: u64,
) -> Result<Vec<i64>> {
    let length = source.document_length(document)?;
    source.tokens(&[Span {
        document,
        start: 0,
        length,
    }])
}

/// Scans the texts between the end-of-document tokens of a document. One without a text counts as one.
fn scan_document(
    document: u64,
    tokens: &[i64],
    decoder: DocumentDecoder<'_>,
    (scanner, buffer): (&mut TextScanner<'_>, &mut Vec<u8>),
    scanned: &mut Scanned,
) -> Result<()> {
    let eod = decoder.eod.map(i64::from);
    let n_eod_bytes = eod.map_or(0, |eod| decoder.token_bytes.length(eod)) as u64;
    let mut first_byte = 0;
    let mut n_texts = 0;
    for tokens in tokens.split(|token| Some(*token) == eod) {
        if !tokens.is_empty() {
            let (end, _) = decoder
                .token_bytes
                .decode(tokens.iter().copied(), buffer, 0)?;
            let text = &buffer[..end];
            let is_candidate = scanner.scan(document, first_byte, text, &mut scanned.spilled);
            scanned.n_candidates += u64::from(is_candidate);
            first_byte += end as u64;
            n_texts += 1;
        }
        first_byte += n_eod_bytes;
    }
    scanned.n_documents += n_texts.max(1);
    Ok(())
}

fn check_config(config: &ContaminationConfig) -> Result<()> {
    if !(config.threshold > 0.0 && config.threshold <= 1.0) {
        return Err(Error::argument(
            "the threshold must be above 0 and at most 1",
        ));
    }
    if config.max_gap > MAX_GAP {
        let what = format!("a gap of {} words: at most {MAX_GAP}", config.max_gap);
        return Err(Error::argument(what));
    }
    Ok(())
}

/// Reads the spilled texts twice: to count the documents that have each n-gram, and to score.
fn weigh_and_score(
    items: &BenchmarkItems,
    scratch: &Scratch,
    n_files: usize,
    n_documents: u64,
    config: &ContaminationConfig,
    progress: &Progress,
) -> Result<Contamination> {
    let files = (0..n_files).map(|number| Mapped::open(&scratch.path(&texts_name(number))));
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut n_with = vec![0; items.n_grams()];
    // By n-gram, the last text that had it, counted from 1: a text counts once.
    let mut last_with = vec![0; items.n_grams()];
    let mut n_candidates = 0;
    for file in &files {
        each_text(file.path(), file.bytes(), items.n_grams(), |text| {
            n_candidates += 1;
            for hit in &text.hits {
                let gram = hit.gram as usize;
                n_with[gram] += u64::from(last_with[gram] != n_candidates);
                last_with[gram] = n_candidates;
            }
            // No bytes of the corpus, but a check whether the user has stopped the job.
            progress.advance(0)
        })?;
    }
    drop(last_with);
    let rarity = Rarity::new(items, &n_with, n_documents);
    let mut scorer = Scorer::new(items, &rarity, config.threshold, config.max_gap);
    let summary = |(number, part): (usize, &super::items::Part)| PartSummary {
        n_words: part.n_words as u64,
        n_grams: part.grams.len() as u64,
        weight: rarity.total(number),
        is_telling: part.n > 0 && rarity.is_telling(number),
        n_documents: 0,
    };
    let mut parts: Vec<PartSummary> = items.parts.iter().enumerate().map(summary).collect();
    // A sort of all matches would move each of them many times.
    let mut of_parts: Vec<Vec<Match>> = parts.iter().map(|_| Vec::new()).collect();
    let mut contaminated = Vec::new();
    for (shard, file) in files.iter().enumerate() {
        each_text(file.path(), file.bytes(), items.n_grams(), |text| {
            let found_in_text = scorer.score(shard as u32, text);
            if config.lists_bytes {
                contaminated.extend(contaminated_bytes(items, &found_in_text));
            }
            for found in found_in_text {
                let part = &mut parts[found.part as usize];
                part.n_documents += 1;
                if part.n_documents <= MAX_LISTED {
                    of_parts[found.part as usize].push(found);
                }
            }
            // No bytes of the corpus, but a check whether the user has stopped the job.
            progress.advance(0)
        })?;
    }
    check_mapped()?;
    Ok(Contamination {
        matches: of_parts.into_iter().flatten().collect(),
        parts,
        contaminated,
        summary: ContaminationSummary {
            n_documents,
            n_grams: items.n_grams() as u64,
            n_found_grams: n_with.iter().filter(|n| **n > 0).count() as u64,
            n_candidates,
            shards: Vec::new(),
        },
    })
}

/// The bytes of the passages and questions among the matches in one text.
fn contaminated_bytes(items: &BenchmarkItems, found: &[Match]) -> Vec<ContaminatedBytes> {
    let is_contaminated = |found: &&Match| {
        let role = items.parts[found.part as usize].role;
        matches!(role, Role::Passage | Role::Question)
    };
    let mut bytes: Vec<ContaminatedBytes> = found
        .iter()
        .filter(is_contaminated)
        .flat_map(|found| {
            found.occurrences.iter().map(|bytes| ContaminatedBytes {
                shard: found.shard,
                document: found.document,
                bytes: bytes.clone(),
            })
        })
        .collect();
    bytes.sort_unstable_by_key(|of| (of.bytes.start, of.bytes.end));
    bytes.dedup_by(|later, kept| {
        let overlaps = later.bytes.start <= kept.bytes.end;
        if overlaps {
            kept.bytes.end = kept.bytes.end.max(later.bytes.end);
        }
        overlaps
    });
    bytes
}
