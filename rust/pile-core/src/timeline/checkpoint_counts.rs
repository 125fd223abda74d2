//! Counts over the data that a model has read at each checkpoint, in one pass over the order: of terms, and
//! by Pythia's arithmetic rule.

use rustc_hash::FxHashMap;

use crate::{
    Error, Result,
    count::{ArithmeticCounter, ArithmeticKey, TermCounter, TermSums, TermTotals, Terms, in_order},
    order::TrainingOrder,
    progress::Progress,
    tokenize::TokenBytes,
    tokens::TokenSource,
};

/// Samples of one work item: of 2,049 tokens each, about two megabytes of text.
const ITEM_SAMPLES: u64 = 256;

/// Counts over the samples up to each of several checkpoints.
#[derive(Clone, Copy)]
pub struct CheckpointCounts<'a, S> {
    /// The order.
    pub order: &'a TrainingOrder<S>,
    /// Decodes its tokens.
    pub table: &'a TokenBytes,
    /// Samples read at each checkpoint, ascending.
    pub ends: &'a [u64],
    /// Threads.
    pub n_threads: usize,
}

impl<S: TokenSource> CheckpointCounts<'_, S> {
    /// Calls `count` on each sample with the state of its thread, and `take` on that state after each work item.
    /// `receive` gets the results of `take` in the order of the samples, and `None` at each checkpoint.
    fn for_each_item<T: Send, W: Default>(
        &self,
        progress: &Progress,
        count: impl Fn(u64, &mut W) -> Result<()> + Sync,
        take: impl Fn(&mut W) -> T + Sync,
        mut receive: impl FnMut(Option<T>) -> Result<()>,
    ) -> Result<()> {
        let mut start = 0;
        for end in self.ends {
            let end = *end;
            if end < start {
                return Err(Error::argument("the steps of checkpoints must ascend"));
            }
            self.order.check_range(start, end - start)?;
            let n_items = (end - start).div_ceil(ITEM_SAMPLES) as usize;
            let item = |number: usize, state: &mut W| {
                let first = start + number as u64 * ITEM_SAMPLES;
                let last = (first + ITEM_SAMPLES).min(end);
                (first..last).try_for_each(|sample| count(sample, state))?;
                progress.advance(last - first)?;
                Ok(take(state))
            };
            in_order(n_items, self.n_threads, item, |counted| {
                receive(Some(counted))
            })?;
            receive(None)?;
            start = end;
        }
        Ok(())
    }

    /// Counts terms within each document's part of a sample, and calls `report` at each checkpoint with the
    /// counts up to it. The units are samples: one with a term in the parts of two documents counts once. An occurrence
    /// that the boundary of two samples cuts is not counted.
    ///
    /// # Errors
    /// Checkpoints that do not ascend or are beyond the order, an order that cannot be read, an error of `report`, or a stop.
    pub fn count_terms<'t>(
        &self,
        terms: &'t Terms,
        progress: &Progress,
        mut report: impl FnMut(TermTotals) -> Result<()>,
    ) -> Result<()> {
        let count = |sample: u64, state: &mut Option<(TermCounter<'t>, Vec<u8>)>| {
            let (counter, text) =
                state.get_or_insert_with(|| (TermCounter::new(terms), Vec::new()));
            // All samples are of one group, so this returns no counts: `take` does.
            counter.begin(0);
            let tokens = self.order.tokens(sample)?;
            let mut first = 0;
            for span in self.order.spans(sample)? {
                let end = first + span.length as usize;
                let of_span = tokens[first..end].iter().copied();
                // From byte 0 of `text`, which is scratch.
                let (n_bytes, _) = self.table.decode(of_span, text, 0)?;
                counter.add(&text[..n_bytes]);
                first = end;
            }
            Ok(())
        };
        let take = |state: &mut Option<(TermCounter<'t>, Vec<u8>)>| {
            state.as_mut().map(|(counter, _)| counter.take())
        };
        let mut sums = TermSums::new(terms);
        self.for_each_item(progress, count, take, |counted| match counted {
            Some(counted) => {
                counted.iter().for_each(|counted| sums.add(counted));
                Ok(())
            }
            None => report(sums.totals()),
        })
    }

    /// Counts by Pythia's arithmetic rule in whole samples, across documents, and calls `report` at each
    /// checkpoint with the counts up to it.
    ///
    /// # Errors
    /// As [`Self::count_terms`].
    pub fn count_arithmetic(
        &self,
        progress: &Progress,
        mut report: impl FnMut(&FxHashMap<ArithmeticKey, u64>) -> Result<()>,
    ) -> Result<()> {
        let count = |sample: u64, (counter, text): &mut (ArithmeticCounter, Vec<u8>)| {
            let spans = self.order.spans(sample)?;
            let n_tokens: u64 = spans.iter().map(|span| span.length).sum();
            let tokens = self.order.tokens(sample)?;
            // `tokens` ends with padding, which is not counted.
            let of_documents = tokens[..n_tokens as usize].iter().copied();
            let (end, _) = self.table.decode(of_documents, text, 0)?;
            counter.add(&String::from_utf8_lossy(&text[..end]));
            Ok(())
        };
        let take = |(counter, _): &mut (ArithmeticCounter, Vec<u8>)| counter.take();
        let mut sums: FxHashMap<ArithmeticKey, u64> = FxHashMap::default();
        self.for_each_item(progress, count, take, |counted| match counted {
            Some(counted) => {
                for (key, n) in counted {
                    *sums.entry(key).or_default() += n;
                }
                Ok(())
            }
            None => report(&sums),
        })
    }
}
