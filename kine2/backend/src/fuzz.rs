//! What the fuzzer of state streams runs; a test runs the same over the seeds that were kept.

use crate::block_store::BlockStore;
use crate::map_engine::MapEngine;
use crate::mem::MemBackend;
use crate::stream::{ChunkWriter, StreamError, export, import};
use kine2_mvcc::Backend;

/// Reads `data` as the stream of a state, and uses what it gives.
///
/// The first byte of `data` tells how: even, the rest is the stream; odd, the rest is its chunks
/// (kind, two bytes of length, payload), which get the right checksums, as no accident would give.
///
/// # Panics
/// When two backends make something different of it, or what was read cannot be written and read
/// again as it is.
pub fn state_import(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    if how % 2 == 0 {
        check(data);
    } else {
        check(&chunked(data));
    }
}

fn chunked(mut data: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut writer = ChunkWriter::begin(&mut stream).expect("memory takes it");
    while let Some(([kind, low, high], rest)) = data.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (payload, rest) = rest.split_at(len);
        let mut chunk = payload.into();
        writer.chunk(*kind, &mut chunk).expect("memory takes it");
        data = rest;
    }
    stream
}

fn check(stream: &[u8]) {
    let mem = MemBackend::default();
    let engine = MapEngine::default();
    let blocks = opened(&engine);
    match (import(&mem, stream), import(&blocks, stream)) {
        (Ok(()), Ok(())) => {}
        (
            Err(StreamError::Damaged(_) | StreamError::Version { .. }),
            Err(StreamError::Damaged(_) | StreamError::Version { .. }),
        ) => return,
        (mem, blocks) => panic!("in memory {mem:?}, in blocks {blocks:?}"),
    }
    let written = exported(&mem);
    assert!(exported(&blocks) == written, "blocks give something else");
    drop(blocks);
    assert!(exported(&opened(&engine)) == written, "it was not kept");
    let again = MemBackend::default();
    import(&again, &written[..]).expect("what was exported can be imported");
    assert!(exported(&again) == written, "it changes on the way");
    let ids = ids(&mem);
    for id in ids {
        let record = mem.get(id).expect("memory can be read");
        assert_eq!(again.get(id).expect("memory can be read"), record);
        assert_eq!(opened(&engine).get(id).expect("it is whole"), record);
    }
}

fn opened(engine: &MapEngine) -> BlockStore<MapEngine> {
    BlockStore::open(engine.clone(), true).expect("what was written is whole")
}

fn exported(backend: &dyn Backend) -> Vec<u8> {
    let mut stream = Vec::new();
    export(backend, &mut stream).expect("memory takes it");
    stream
}

fn ids(backend: &dyn Backend) -> Vec<kine2_mvcc::ChangeId> {
    let mut ids = Vec::new();
    backend
        .metas(&mut |meta| ids.push(meta.id))
        .expect("memory can be read");
    ids
}
