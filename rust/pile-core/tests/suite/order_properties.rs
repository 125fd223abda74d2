//! Orders of random documents, compared with a slow reference that lays out every token.
#![allow(clippy::unwrap_used)]

use pile_core::{
    Result,
    order::{
        Amount, IndexedSamples, MegatronConfig, OrderConfig, OrderRule, TrainingOrder, build,
        megatron, packed,
    },
    progress::Progress,
    tokens::{Span, TokenSource, TokenType},
};
use proptest::prelude::*;

/// Documents of these lengths, in which token `t` of document `d` is `100 * d + t`.
struct NumberedTokens(Vec<i32>);

impl TokenSource for NumberedTokens {
    fn n_documents(&self) -> u64 {
        self.0.len() as u64
    }

    fn document_length(&self, document: u64) -> Result<u64> {
        Ok(self.0[document as usize] as u64)
    }

    fn token_type(&self) -> TokenType {
        TokenType::I32
    }

    fn read(&self, spans: &[Span], out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        for span in spans {
            assert!(span.start + span.length <= self.document_length(span.document)?);
            for offset in span.start..span.start + span.length {
                let token = (span.document * 100 + offset) as i32;
                out[done..done + 4].copy_from_slice(&token.to_le_bytes());
                done += 4;
            }
        }
        Ok(done)
    }
}

fn rows(lengths: &[i32], config: &OrderConfig) -> Vec<Vec<i64>> {
    build(lengths, None, config, &Progress::default()).unwrap();
    let samples = IndexedSamples::open(&config.stem, config.layout()).unwrap();
    let order = TrainingOrder::new(Box::new(samples), NumberedTokens(lengths.to_vec()), -1);
    let row = |i| {
        let mut bytes = vec![0; order.sample_length() as usize * 4];
        order.read_batch(i, 1, &mut bytes).unwrap();
        bytes
            .chunks_exact(4)
            .map(|b| TokenType::I32.decode(b))
            .collect()
    };
    (0..order.n_samples()).map(row).collect()
}

/// The tokens of these documents, one after the other.
fn concatenated(lengths: &[i32], documents: impl Iterator<Item = i64>) -> Vec<i64> {
    documents
        .flat_map(|d| (0..i64::from(lengths[d as usize])).map(move |offset| d * 100 + offset))
        .collect()
}

fn documents() -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(0_i32..20, 1..40).prop_filter("tokens", |l| l.iter().sum::<i32>() > 1)
}

proptest! {
    #[test]
    fn packed_samples_are_windows_of_the_stream(
        lengths in documents(), seq_length in 1_u64..30, n_samples in 1_u64..60, seed: u32,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let config = OrderConfig::packed(folder.path().join("o"), seq_length, n_samples, seed);
        let found = rows(&lengths, &config);
        prop_assert!(found.len() as u64 >= n_samples);
        let all = 0..lengths.len();
        let amount = Amount::Samples(n_samples);
        let built = packed(&lengths, all, seq_length, amount, seed, &Progress::default()).unwrap();
        let stream = concatenated(&lengths, built.doc_idx.iter().map(|d| i64::from(*d)));
        let mut expected: Vec<&[i64]> = stream
            .windows(seq_length as usize + 1)
            .step_by(seq_length as usize)
            .collect();
        let mut found: Vec<&[i64]> = found.iter().map(Vec::as_slice).collect();
        expected.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn megatron_samples_are_windows_of_the_stream(
        lengths in documents(), seq_length in 1_u64..30, n_samples in 1_u64..60, seed: u32,
        extra in 0_u64..2, drop_last_partial: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let config = OrderConfig {
            rule: OrderRule::Megatron { extra, drop_last_partial },
            ..OrderConfig::packed(folder.path().join("o"), seq_length, n_samples, seed)
        };
        let mut found = rows(&lengths, &config);
        let megatron_config = MegatronConfig {
            seq_length, n_samples: Some(n_samples), seed, extra, drop_last_partial,
        };
        let built = megatron(&lengths, 0..lengths.len(), &megatron_config, &Progress::default()).unwrap();
        let stream = concatenated(&lengths, built.doc_idx.iter().map(|d| i64::from(*d)));
        let length = (seq_length + extra) as usize;
        let mut expected: Vec<Vec<i64>> = stream
            .windows(length)
            .step_by(seq_length as usize)
            .map(<[i64]>::to_vec)
            .collect();
        let used = expected.len() * seq_length as usize;
        if !drop_last_partial && stream.len() > used + extra as usize {
            let mut last = stream[used..].to_vec();
            last.resize(length, -1);
            expected.push(last);
        }
        expected.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn whole_documents_stay_whole(
        lengths in documents(), seq_length in 5_u64..30, n_samples in 1_u64..40, seed: u32,
        is_unpacked: bool, allow_chopped: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let rule = if is_unpacked { OrderRule::Unpacked } else { OrderRule::PackUntilOverflow };
        let config = OrderConfig {
            rule,
            allow_chopped,
            ..OrderConfig::packed(folder.path().join("o"), seq_length, n_samples, seed)
        };
        let fits = |l: &i32| allow_chopped || *l as u64 <= seq_length + 1;
        prop_assume!(lengths.iter().any(fits));
        for row in rows(&lengths, &config) {
            // A run of one document begins with its first token. It is complete unless the row ends.
            for (k, token) in row.iter().enumerate().filter(|(_, token)| **token >= 0) {
                let starts = token % 100 == 0;
                prop_assert!(starts || (k > 0 && row[k - 1] == token - 1));
                let is_last = token % 100 + 1 == i64::from(lengths[(token / 100) as usize]);
                let continues = row.get(k + 1) == Some(&(token + 1));
                let is_last_label = starts && row[k + 1..].iter().all(|t| *t == -1);
                prop_assert!(is_last || continues || k + 1 == row.len() || is_last_label);
            }
        }
    }
}
