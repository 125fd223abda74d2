//! The job that finds duplicates.

use std::{fs, path::PathBuf};

use serde::Serialize;

use super::{
    Bands, Decision, DedupConfig, DuplicateKind, DuplicateRows, SketchedShard,
    bands::probability_curve,
    bits::BitSet,
    candidates::{Candidates, RankPair, find_candidates},
    clusters::{Clusters, Removals},
    config::check_permutations,
    documents::Documents,
    exact::{ExactGroups, group_by_hash},
    ranks::{Ranks, rank_documents},
    sketch::{DedupState, sketch_shards},
    spill::{Needed, SpilledDocuments, spill_documents},
    stored::{DocumentSignatures, SignatureFiles, StoredSignatures},
    tasks::{TaskRunner, Tasks, spilled_by_task},
    verify::{ComparedTexts, PairCounts, verify_copies, verify_pairs},
};
use crate::{
    Error, Result,
    io::{RecordFile, Scratch, check_mapped},
    progress::Progress,
};

/// What was found.
#[derive(Debug)]
pub struct Duplicates {
    /// The members of all clusters.
    pub rows: DuplicateRows,
    /// The totals.
    pub summary: DedupSummary,
}

/// Totals of a job.
#[derive(Debug, Serialize)]
pub struct DedupSummary {
    /// Documents, empty ones included.
    pub n_documents: u64,
    /// Bytes of their texts.
    pub n_text_bytes: u64,
    /// Documents that are removed.
    pub n_removed: u64,
    /// Bytes of their texts.
    pub n_removed_bytes: u64,
    /// Documents whose text is that of a document that is preferred to them.
    pub n_exact_copies: u64,
    /// Clusters of at least two documents.
    pub n_clusters: u64,
    /// Documents of the largest one.
    pub largest_cluster: u32,
    /// Documents of clusters that are too large, all of which are kept.
    pub n_left_alone: u64,
    /// Bands of the signatures; `None` if only exact duplicates were searched.
    pub bands: Option<Bands>,
    /// Similarities, and the probability that a pair of documents with it is found.
    pub curve: Vec<(f64, f64)>,
    /// Distinct pairs of documents that share a band.
    pub n_candidates: u64,
    /// Those that are similar.
    pub n_verified: u64,
    /// Groups of documents with an equal band that were too large for all pairs to be candidates.
    pub n_capped_buckets: u64,
    /// Candidates by similarity, in 100 bins of equal width from 0 to 1.
    pub histogram: Vec<u64>,
    /// Shards that an earlier, interrupted run sketched.
    pub n_resumed_shards: usize,
    /// By shard.
    pub shards: Vec<SketchedShard>,
    /// By subset, in order of first appearance.
    pub subsets: Vec<SubsetDuplicates>,
}

/// Totals of a subset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SubsetDuplicates {
    /// Its name; `None` for documents without a subset.
    pub name: Option<String>,
    /// Its documents.
    pub n_documents: u64,
    /// Bytes of their texts.
    pub n_text_bytes: u64,
    /// Documents that are removed.
    pub n_removed: u64,
    /// Bytes of their texts.
    pub n_removed_bytes: u64,
}

/// Finds duplicates, or resumes the job. `progress` advances by compressed bytes, twice for each shard.
///
/// With a `runner`, bands, second pass and verification are its tasks, which share the folder. The result is the same
/// with and without one, for any number of threads, any memory and any interruption.
///
/// # Errors
/// A shard cannot be read twice, is damaged, or changes; a bad record that the rules refuse; a document too large
/// for the memory; a protected record that does not exist; too many documents or subsets; the folder has work of
/// another job; the file system fails; or a stop.
pub fn find_duplicates(
    config: &DedupConfig,
    runner: Option<&mut dyn TaskRunner>,
    progress: &Progress,
) -> Result<Duplicates> {
    check_config(config)?;
    let mut tasks = runner.map(|runner| Tasks::new(config, runner));
    let (mut scratch, mut state) = DedupState::open(
        &config.folder,
        &config.job,
        config.discard,
        &config.shards,
        progress,
    )?;
    let n_resumed_shards = state.shards.len();
    sketch_shards(config.sketch(), &mut scratch, &mut state, progress)?;
    let sort_folder = empty_folder(&scratch)?;
    let documents = Documents::open(&config.folder, &state)?;
    let ranks = rank_documents(config, &documents, &state, &sort_folder, progress)?;
    let mut groups = group_by_hash(&documents, &ranks, config.memory, &sort_folder, progress)?;
    let candidates = match (&config.near, &mut tasks) {
        (None, _) => None,
        (Some(near), Some(tasks)) => {
            let of_documents = (&documents, &ranks, &groups);
            Some(tasks.find_candidates(near, of_documents, &sort_folder, progress)?)
        }
        (Some(near), None) => Some(find_candidates(
            near,
            &SignatureFiles::of(config, &state)?,
            (&documents, &ranks, &groups),
            config.n_older,
            config.memory,
            &sort_folder,
            progress,
        )?),
    };
    let n_estimated = documents.end_of(config.n_estimated());
    let needed = needed_documents(
        &documents,
        &ranks,
        &groups,
        candidates.as_ref(),
        n_estimated,
    )?;
    match &mut tasks {
        Some(tasks) => tasks.spill_documents(&state, &documents, &needed, progress)?,
        None => spill_documents(
            config,
            &mut scratch,
            &mut state,
            &documents,
            &needed,
            progress,
        )?,
    }
    drop(needed);
    let spilled = SpilledDocuments::open(&documents, |shard| match tasks {
        Some(_) => spilled_by_task(config, shard),
        None => Ok(state
            .spilled
            .contains(&shard)
            .then(|| config.folder.clone())),
    })?;
    let texts = ComparedTexts {
        documents: &documents,
        spilled: &spilled,
        signatures: DocumentSignatures::for_estimates(config, &state)?,
        n_estimated,
    };
    verify_copies(&mut groups, &texts, config.n_threads, progress)?;
    let pairs = match (&config.near, &candidates) {
        (Some(_), Some(candidates)) if let Some(tasks) = &mut tasks => {
            Some(tasks.verify_pairs(candidates, &sort_folder, progress)?)
        }
        (Some(near), Some(candidates)) => Some(verify_pairs(
            near,
            candidates,
            &ranks,
            &texts,
            config.n_threads,
            &sort_folder,
            progress,
        )?),
        _ => None,
    };
    let (verified, counts) = pairs.unzip();
    let found = decide(
        config,
        &state,
        &documents,
        &ranks,
        &groups,
        verified.as_ref(),
    )?;
    check_mapped()?;
    fs::remove_dir_all(&sort_folder).map_err(|err| Error::io(&sort_folder, err))?;
    Ok(found.with_counts(config, state, counts, candidates.as_ref(), n_resumed_shards))
}

fn check_config(config: &DedupConfig) -> Result<()> {
    let stored = StoredSignatures::by_shard(&config.stored, config.shards.len())?;
    if config.n_older > stored.len() || stored[..config.n_estimated()].contains(&None) {
        return Err(Error::argument(
            "estimates need stored signatures of all older shards",
        ));
    }
    // A stream cannot be read twice.
    for path in config.shards.iter().skip(config.n_estimated()) {
        let found = fs::metadata(path).map_err(|err| Error::io(path, err))?;
        if !found.is_file() {
            let what = "not a regular file, and deduplication reads each shard twice";
            return Err(Error::malformed(path, what));
        }
    }
    if let Some(near) = &config.near {
        check_permutations(near.permutations)?;
        let Bands { bands, rows } = near.bands;
        if bands == 0 || rows == 0 || bands.saturating_mul(rows) > near.permutations {
            return Err(Error::argument(format!(
                "{bands} bands of {rows} rows do not fit {} permutations",
                near.permutations
            )));
        }
    }
    Ok(())
}

/// The folder in that of a job for files that a killed job does not resume from.
pub(super) const SORT: &str = "sort";

/// Makes the folder [`SORT`] of a job, or empties it.
pub(super) fn empty_folder(scratch: &Scratch) -> Result<PathBuf> {
    let folder = scratch.path(SORT);
    let fail = |err| Error::io(&folder, err);
    match fs::symlink_metadata(&folder) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&folder).map_err(fail)?,
        _ => crate::io::remove_if_there(&folder)?,
    }
    fs::create_dir(&folder).map_err(fail)?;
    Ok(folder)
}

/// The documents that have to be read again.
fn needed_documents(
    documents: &Documents,
    ranks: &Ranks,
    groups: &ExactGroups,
    candidates: Option<&Candidates>,
    n_estimated: u32,
) -> Result<Needed> {
    let mut needed = Needed::new(documents.len());
    let copies = groups.copies(groups.all());
    for (copy, preferred) in copies.filter(|(a, b)| *a.min(b) >= n_estimated) {
        needed.texts.insert(copy);
        needed.texts.insert(preferred);
    }
    if let Some(candidates) = candidates {
        let mut pairs = candidates.pairs.read()?;
        while let Some(pair) = pairs.next()? {
            let RankPair { preferred, other } = RankPair::unpack(pair);
            let [a, b] = [preferred, other].map(|rank| ranks.documents[rank as usize]);
            if a.min(b) >= n_estimated {
                needed.shingles.insert(a);
                needed.shingles.insert(b);
            }
        }
    }
    Ok(needed)
}

/// The rows of the result, and the totals that they give.
#[derive(Default)]
struct Decided {
    rows: DuplicateRows,
    subsets: Vec<SubsetDuplicates>,
    n_exact_copies: u64,
    n_clusters: u64,
    largest_cluster: u32,
    n_left_alone: u64,
}

fn decide(
    config: &DedupConfig,
    state: &DedupState,
    documents: &Documents,
    ranks: &Ranks,
    groups: &ExactGroups,
    verified: Option<&RecordFile>,
) -> Result<Decided> {
    let clusters = Clusters::new(groups, ranks, verified)?;
    let largest = match config.large_clusters {
        true => u64::MAX,
        false => config.max_cluster,
    };
    let removals = Removals::decide(groups, ranks, &clusters, verified, largest)?;
    let older = documents.end_of(config.n_older);
    // By the smallest documents of clusters.
    let mut has_new = BitSet::new(documents.len() as usize);
    for document in older..documents.len() {
        has_new.insert(clusters.first[document as usize]);
    }
    let (n_clusters, largest_cluster) = clusters.count(&has_new);
    let subset = |name: &Option<String>| SubsetDuplicates {
        name: name.clone(),
        ..SubsetDuplicates::default()
    };
    let mut decided = Decided {
        subsets: state.subsets.iter().map(subset).collect(),
        n_exact_copies: groups
            .copies(groups.all())
            .filter(|(copy, _)| *copy >= older)
            .count() as u64,
        n_clusters,
        largest_cluster,
        ..Decided::default()
    };
    documents.for_each(|document, shard, row| {
        let subset = &mut decided.subsets[row.subset as usize];
        if document >= older {
            subset.n_documents += 1;
            subset.n_text_bytes += row.n_bytes;
        }
        let size = clusters.size(document);
        if size < 2 || !has_new.contains(clusters.first[document as usize]) {
            return Ok(());
        }
        let (decision, kept_copy, similarity, mut kind) = removals.of(document, groups, &clusters);
        if kind == DuplicateKind::Near && kept_copy < documents.end_of(config.n_estimated()) {
            kind = DuplicateKind::Estimate;
        }
        match decision {
            Decision::Removed => {
                subset.n_removed += 1;
                subset.n_removed_bytes += row.n_bytes;
            }
            Decision::LeftAlone => decided.n_left_alone += u64::from(document >= older),
            Decision::Kept => {}
        }
        let rows = &mut decided.rows;
        rows.document.push(document);
        rows.shard.push(shard as u32);
        rows.record.push(row.record);
        rows.cluster.push(clusters.first[document as usize]);
        rows.cluster_size.push(size);
        rows.decision.push(decision as u8);
        rows.kept_copy.push(kept_copy);
        rows.similarity.push(similarity);
        rows.kind.push(kind as u8);
        Ok(())
    })?;
    if older > 0 {
        decided.subsets.retain(|subset| subset.n_documents > 0);
    }
    Ok(decided)
}

impl Decided {
    fn with_counts(
        self,
        config: &DedupConfig,
        state: DedupState,
        pairs: Option<PairCounts>,
        candidates: Option<&Candidates>,
        n_resumed_shards: usize,
    ) -> Duplicates {
        let sum = |count: fn(&SubsetDuplicates) -> u64| self.subsets.iter().map(count).sum();
        let bands = config.near.as_ref().map(|near| near.bands);
        let counts = pairs.as_ref();
        Duplicates {
            summary: DedupSummary {
                n_documents: sum(|subset| subset.n_documents),
                n_text_bytes: sum(|subset| subset.n_text_bytes),
                n_removed: sum(|subset| subset.n_removed),
                n_removed_bytes: sum(|subset| subset.n_removed_bytes),
                n_exact_copies: self.n_exact_copies,
                n_clusters: self.n_clusters,
                largest_cluster: self.largest_cluster,
                n_left_alone: self.n_left_alone,
                bands,
                curve: bands.map(probability_curve).unwrap_or_default(),
                n_candidates: counts.map_or(0, |counts| counts.n_candidates),
                n_verified: counts.map_or(0, |counts| counts.n_verified),
                n_capped_buckets: candidates.map_or(0, |found| found.n_capped_buckets),
                histogram: pairs.map(|counts| counts.histogram).unwrap_or_default(),
                n_resumed_shards,
                shards: state.shards,
                subsets: self.subsets,
            },
            rows: self.rows,
        }
    }
}
