//! Arbitrary bytes as a `.provenance` file: reading an opened file returns locations or errors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pile_core::tokens::Provenance;

fuzz_target!(|input: (u8, &[u8])| {
    let (n_documents, bytes) = input;
    let n_documents = u64::from(n_documents);
    let path = pile_fuzz::file("a.provenance", bytes);
    let Ok(provenance) = Provenance::open(&path, n_documents) else {
        return;
    };
    let mut locations = provenance.locations(0, n_documents);
    for document in 0..n_documents {
        if let Some(Ok(location)) = locations.next() {
            assert_eq!(provenance.location(document).ok(), Some(location));
        }
        if let Ok(Some(origin)) = provenance.origin(document) {
            assert!(
                provenance
                    .shards()
                    .iter()
                    .any(|shard| shard.path == origin.shard)
            );
        }
    }
    for shard in 0..=provenance.shards().len() as u32 {
        let _ = provenance.documents_of(shard, 0);
    }
    assert!(provenance.origin(n_documents).is_err());
});
