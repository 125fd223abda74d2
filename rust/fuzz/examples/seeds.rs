//! Writes the first inputs of each target to `corpus/TARGET`: small valid files that the fuzzer mutates.

use std::{fs, io, path::Path};

use pile_core::{
    order::{OrderConfig, build},
    progress::Progress,
    tokens::{RecordLocation, ShardSpan, TokenDataset, TokenType, write_idx, write_provenance},
};
use pile_fuzz::{file, indexed, join, path, trained};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (i, line) in RECORDS.iter().enumerate() {
        seed("record", &i.to_string(), line)?;
        seed(
            "record_edit",
            &i.to_string(),
            &[&b"\0\x01"[..], line].concat(),
        )?;
    }
    let lines = RECORDS.join(&b'\n');
    let (plain, packed) = (0_u32, u32::MAX);
    seed(
        "shard",
        "lines",
        &[&packed.to_le_bytes()[..], b"\x05\0\x09\0", &lines].concat(),
    )?;
    seed(
        "shard",
        "plain",
        &[&plain.to_le_bytes()[..], b"\0", &lines].concat(),
    )?;
    let frame = zstd::encode_all(&lines[..], 3)?;
    seed(
        "shard",
        "zstd",
        &[&plain.to_le_bytes()[..], b"\x01", &frame].concat(),
    )?;
    seed_tokenizers()?;
    seed(
        "encode",
        "text",
        "\0 The  né\u{301}'ll 日本語 はし 10,000\n\n\t x <|endoftext|> <left> é".as_bytes(),
    )?;
    seed(
        "shingles",
        "words",
        "\u{4}the quick\u{a0}brown\u{3000}fox the quick brown fox 日本 é\u{2003}x".as_bytes(),
    )?;
    seed(
        "item_words",
        "words",
        "Don't: Ｆｕｌｌ cafe\u{301} ½x Straße\n東京 ｶﾞ 한국 ดี =\u{338} \u{1fb3}\u{345}".as_bytes(),
    )?;
    seed(
        "decode",
        "ids",
        &(0..300_u16).flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
    )?;
    let line =
        "the same words of a license, more than once, in 日本語 too, and a run of spaces: 9=9-9\n";
    seed(
        "passages",
        "text",
        &[line.repeat(3).as_bytes(), &[0, 0, 0, 1, 40]].concat(),
    )?;
    seed_datasets()
}

const RECORDS: [&[u8]; 6] = [
    br#"{"text": "a\n\u00e9\ud83d\ude00", "meta": {"pile_set_name": "C"}}"#,
    br#"{"id": [1, {"text": 2.5e3}], "meta": null, "text": "b"}"#,
    br#"{"text": "\ud800", "other": [true, false, null, -0.1]}"#,
    br#"{"text": ""}"#,
    br#""a string""#,
    br#"{"text": ["a", "b"], "meta": "c"}"#,
];

fn seed(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

fn seed_tokenizers() -> io::Result<()> {
    let text = "ab é  abba<|endoftext|>\n  x";
    let whole = trained::tokenizer_json(trained::Settings {
        is_nfc: true,
        adds_prefix_space: false,
        ignores_merges: true,
    });
    seed("tokenizer", "trained", &join(&[&whole, text.as_bytes()]))?;
    let small = br#"{"version": "1.0", "added_tokens": [{"id": 3, "content": "<|endoftext|>", "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false, "special": true}], "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "ignore_merges": true}}"#;
    seed("tokenizer", "small", &join(&[small, text.as_bytes()]))
}

fn seed_datasets() -> Result<(), Box<dyn std::error::Error>> {
    let mut idx = Vec::new();
    write_idx(&mut idx, TokenType::U16, &[5, 0, 7, 1, 9])?;
    seed(
        "dataset",
        "good",
        &[&44_u16.to_le_bytes()[..], &idx].concat(),
    )?;
    let shard = ShardSpan {
        path: "a".into(),
        first_document: 0,
        end_document: 2,
    };
    let locations = [Ok(Some(RecordLocation::default())), Ok(None)];
    let mut provenance = vec![2];
    write_provenance(&mut provenance, 2, vec![shard], vec!["S".into()], locations)?;
    seed("provenance", "good", &provenance)?;

    let _ = file("d.idx", &idx);
    let bin = file("d.bin", &[0; 44]);
    let dataset = TokenDataset::open(&bin.with_file_name("d"))?;
    let config = OrderConfig::packed(path("o"), 4, 20, 1);
    build(&dataset.lengths()?, None, &config, &Progress::default())?;
    let arrays =
        ["o_doc_idx.npy", "o_sample_idx.npy", "o_shuffle_idx.npy"].map(|name| fs::read(path(name)));
    let arrays = arrays.into_iter().collect::<io::Result<Vec<_>>>()?;
    for (array, name) in arrays.iter().zip(["documents", "samples", "shuffle"]) {
        seed("npy", name, array)?;
    }
    let arrays: Vec<&[u8]> = arrays.iter().map(Vec::as_slice).collect();
    seed("order", "good", &join(&arrays))?;
    for (i, name) in ["ranks", "segment-00000"].iter().enumerate() {
        let (_, folder) = indexed::indexed();
        let mut bytes = fs::read(folder.join(name))?;
        bytes.insert(0, i as u8);
        seed("index", name, &bytes)?;
    }
    Ok(())
}
