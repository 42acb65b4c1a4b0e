//! A block template as it must be to be worth hashing.

use flota_proto::kinds::{Find, NONCE_END_MAX};

use super::block::{self, Header, NONCE_BYTES};
use super::rpc::RawTemplate;
use crate::sources::desk::Work;
use crate::sources::status::Unsent;

/// No block is longer.
const BLOCK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A template that was checked.
#[derive(Clone, Debug)]
pub struct Template {
    block: Vec<u8>,
    hashing: Vec<u8>,
    header: Header,
    key: [u8; 32],
    next_key: Option<[u8; 32]>,
    target: [u8; 32],
    difficulty: u128,
    /// Of the block that is looked for.
    pub height: u64,
}

impl Template {
    /// Checks what a node sent.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(raw: &RawTemplate) -> Result<Self, String> {
        let block = bytes("blocktemplate_blob", &raw.blocktemplate_blob)?;
        let hashing = bytes("blockhashing_blob", &raw.blockhashing_blob)?;
        let header = block::hashing_blob(&hashing).map_err(|error| format!("blockhashing_blob: {error}"))?;
        if block.len() > BLOCK_BYTES_MAX {
            return Err(format!("blocktemplate_blob: it has {} bytes", block.len()));
        }
        let end = header.nonce_offset + NONCE_BYTES;
        if block.get(..end) != hashing.get(..end) {
            return Err("blocktemplate_blob and blockhashing_blob are of different blocks".into());
        }
        if hash("prev_hash", &raw.prev_hash)? != header.prev {
            return Err("prev_hash is not the block before that the blob names".into());
        }
        let key = hash("seed_hash", &raw.seed_hash)?;
        let next_key = if raw.next_seed_hash.is_empty() {
            None
        } else {
            Some(hash("next_seed_hash", &raw.next_seed_hash)?).filter(|next| *next != key)
        };
        let difficulty = difficulty(raw)?;
        let target = block::target(difficulty).ok_or("its difficulty is 0")?;
        Ok(Self { block, hashing, header, key, next_key, target, difficulty, height: raw.height })
    }

    /// The block before, hex.
    pub fn prev(&self) -> String {
        hex::encode(self.header.prev)
    }

    /// What the fleet is to search.
    pub fn work(&self) -> Work {
        Work {
            key: self.key,
            next_key: self.next_key,
            blob: self.hashing.clone(),
            nonce_offset: self.header.nonce_offset,
            nonces: (0, NONCE_END_MAX),
            target: self.target,
            difficulty: u64::try_from(self.difficulty).unwrap_or(u64::MAX),
            find: Find::First,
            height: Some(self.height),
            pool_job_id: None,
        }
    }

    /// The complete block with `nonce`.
    pub fn block(&self, nonce: u32) -> Unsent {
        let offset = self.header.nonce_offset;
        Unsent {
            height: self.height,
            hash: hex::encode(block::id(&block::with_nonce(&self.hashing, offset, nonce))),
            blob: hex::encode(block::with_nonce(&self.block, offset, nonce)),
        }
    }
}

fn bytes(name: &str, text: &str) -> Result<Vec<u8>, String> {
    hex::decode(text).map_err(|error| format!("{name}: {error}"))
}

fn hash(name: &str, text: &str) -> Result<[u8; 32], String> {
    bytes(name, text)?.try_into().map_err(|_| format!("{name}: it is not 32 bytes long"))
}

fn difficulty(raw: &RawTemplate) -> Result<u128, String> {
    match raw.wide_difficulty.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16).map_err(|error| format!("wide_difficulty: {error}")),
        None => Ok(u128::from(raw.difficulty)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From monerod 0.18 on regtest.
    const HASHING: &str = "1010d7a886d806418015bb9ae982a1975da7d79277c2705727a56894ba0fb246adaabb1f4632e3000000000c6d813a42d3b3b8b99446f0aba451e668b4c72a511cb465cc4dd000ec765a1301";
    const BLOCK: &str = "1010d7a886d806418015bb9ae982a1975da7d79277c2705727a56894ba0fb246adaabb1f4632e300000000023d01ff0101808080f0ffff07030d3e46a726c5e02a0c9abbf75ed0159cfce7fddb3e0e6ebf04982357807c066fc82b01aaf7c2df5ee52ebab721301cf1b8dc7b5e095230b5f828c21afac40587cf2a24020800000000000000000000";
    const PREV: &str = "418015bb9ae982a1975da7d79277c2705727a56894ba0fb246adaabb1f4632e3";

    fn raw() -> RawTemplate {
        RawTemplate {
            blocktemplate_blob: BLOCK.into(),
            blockhashing_blob: HASHING.into(),
            difficulty: 10,
            wide_difficulty: "0xa".into(),
            height: 1,
            prev_hash: PREV.into(),
            seed_hash: PREV.into(),
            next_seed_hash: String::new(),
        }
    }

    #[test]
    fn a_template_becomes_work_and_a_nonce_a_block() {
        let template = Template::parse(&raw()).unwrap();
        let work = template.work();
        assert_eq!((work.nonce_offset, work.difficulty, work.height), (39, 10, Some(1)));
        let found = template.block(0x0403_0201);
        assert_eq!(&found.blob[78..86], "01020304");
        assert_eq!(found.blob.len(), BLOCK.len());
    }

    type Spoil = fn(&mut RawTemplate);

    #[test]
    fn a_malformed_template_is_refused_with_what_is_wrong() {
        let spoilt: [(&str, Spoil); 10] = [
            ("blocktemplate_blob", |raw| raw.blocktemplate_blob.push('x')),
            ("different blocks", |raw| raw.blocktemplate_blob = BLOCK.replacen("10", "11", 1)),
            ("different blocks", |raw| raw.blocktemplate_blob.truncate(80)),
            ("blockhashing_blob", |raw| raw.blockhashing_blob.truncate(90)),
            ("blockhashing_blob", |raw| raw.blockhashing_blob.clear()),
            ("prev_hash", |raw| raw.prev_hash = "00".repeat(32)),
            ("seed_hash", |raw| raw.seed_hash.clear()),
            ("next_seed_hash", |raw| raw.next_seed_hash = "abc".into()),
            ("difficulty is 0", |raw| raw.wide_difficulty = "0x0".into()),
            ("wide_difficulty", |raw| raw.wide_difficulty = "0xzz".into()),
        ];
        for (wanted, spoil) in spoilt {
            let mut raw = raw();
            spoil(&mut raw);
            let error = Template::parse(&raw).unwrap_err();
            assert!(error.contains(wanted), "{error} should name {wanted}");
        }
    }
}
