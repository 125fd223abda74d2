//! What a model has read up to each checkpoint: terms, and Pythia's arithmetic counts, in one pass over the order.

use rustc_hash::FxHashMap;

use crate::{
    Error, Result,
    count::{Arithmetic, ArithmeticKey, Sums, TermCounter, Terms, Totals, in_order},
    order::TrainingOrder,
    progress::Progress,
    tokenize::TokenBytes,
    tokens::TokenSource,
};

/// Samples of one work item.
const ITEM_SAMPLES: u64 = 256;

/// The samples of an order, cut where counts are asked for.
#[derive(Clone, Copy)]
pub struct Stretches<'a, S> {
    /// The order.
    pub order: &'a TrainingOrder<S>,
    /// What decodes its tokens.
    pub table: &'a TokenBytes,
    /// Numbers of samples, ascending: counts are told when so many were read.
    pub ends: &'a [u64],
}

impl<S: TokenSource> Stretches<'_, S> {
    /// Gives what `work` makes of the samples of each item to `add`, in order, and calls `told` at each end.
    fn each<T: Send, W: Default>(
        &self,
        (n_threads, progress): (usize, &Progress),
        work: impl Fn(u64, &mut W) -> Result<()> + Sync,
        take: impl Fn(&mut W) -> T + Sync,
        mut add: impl FnMut(Option<T>) -> Result<()>,
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
                (first..last).try_for_each(|sample| work(sample, state))?;
                progress.advance(last - first)?;
                Ok(take(state))
            };
            in_order(n_items, n_threads, item, |made| add(Some(made)))?;
            add(None)?;
            start = end;
        }
        Ok(())
    }

    /// Counts terms in the samples: within each document's part of one. An occurrence that the border of two
    /// samples cuts is in neither. `told` is given all counts so far at each end.
    ///
    /// # Errors
    /// The order has fewer samples or cannot be read, `told` fails, or a stop.
    pub fn count_terms<'t>(
        &self,
        terms: &'t Terms,
        how: (usize, &Progress),
        mut told: impl FnMut(Totals) -> Result<()>,
    ) -> Result<()> {
        let work = |sample: u64, state: &mut Option<(TermCounter<'t>, Vec<u8>)>| {
            let (counter, text) =
                state.get_or_insert_with(|| (TermCounter::new(terms), Vec::new()));
            counter.begin(0);
            for span in self.order.spans(sample)? {
                let tokens = self.order.source().tokens(&[span])?;
                let (end, _) = self.table.decode(tokens.into_iter(), text, 0);
                counter.add(&text[..end]);
            }
            Ok(())
        };
        let take = |state: &mut Option<(TermCounter<'t>, Vec<u8>)>| {
            state.as_mut().map(|(counter, _)| counter.take())
        };
        let mut sums = Sums::new(terms);
        self.each(how, work, take, |made| match made {
            Some(counted) => {
                counted.iter().for_each(|counted| sums.add(counted));
                Ok(())
            }
            None => told(sums.totals()),
        })
    }

    /// Counts by Pythia's arithmetic rule in the whole rows. `told` is given all counts so far at each end.
    ///
    /// # Errors
    /// As [`Self::count_terms`].
    pub fn count_arithmetic(
        &self,
        how: (usize, &Progress),
        mut told: impl FnMut(&FxHashMap<ArithmeticKey, u64>) -> Result<()>,
    ) -> Result<()> {
        let work = |sample: u64, (counting, text): &mut (Arithmetic, Vec<u8>)| {
            let tokens = self.order.source().tokens(&self.order.spans(sample)?)?;
            let (end, _) = self.table.decode(tokens.into_iter(), text, 0);
            counting.add(&String::from_utf8_lossy(&text[..end]));
            Ok(())
        };
        let take = |(counting, _): &mut (Arithmetic, Vec<u8>)| counting.take();
        let mut sums: FxHashMap<ArithmeticKey, u64> = FxHashMap::default();
        self.each(how, work, take, |made| match made {
            Some(counted) => {
                for (key, n) in counted {
                    *sums.entry(key).or_default() += n;
                }
                Ok(())
            }
            None => told(&sums),
        })
    }
}
