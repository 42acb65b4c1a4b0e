//! Monero addresses: base58 in blocks, network byte, Keccak checksum.

use sha3::{Digest, Keccak256};

const ALPHABET: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// How many characters encode so many bytes (the index).
const ENCODED: [usize; 9] = [0, 2, 3, 5, 6, 7, 9, 10, 11];
const CHECKSUM_BYTES: usize = 4;
const KEYS_BYTES: usize = 64;
const PAYMENT_ID_BYTES: usize = 8;

/// Which chain an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The real one; private regtest chains use its addresses too.
    Main,
    /// For tests.
    Test,
    /// For rehearsals.
    Stage,
}

impl Network {
    /// As a node calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Main => "mainnet",
            Self::Test => "testnet",
            Self::Stage => "stagenet",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Primary,
    Integrated,
    Subaddress,
}

/// The network of `address`, if blocks can be mined to it.
///
/// # Errors
/// What is wrong with it, for its owner.
pub fn check(address: &str) -> Result<Network, String> {
    let bytes = decode(address)?;
    let (body, checksum) =
        bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| "it is too short for a Monero address".to_owned())?;
    if Keccak256::digest(body)[..CHECKSUM_BYTES] != *checksum {
        return Err("its checksum is wrong: a character is missing or mistyped".into());
    }
    let (network, form) = body.first().copied().and_then(prefix).ok_or("it is of no network of Monero")?;
    let wanted = match form {
        Form::Primary | Form::Subaddress => 1 + KEYS_BYTES,
        Form::Integrated => 1 + KEYS_BYTES + PAYMENT_ID_BYTES,
    };
    if body.len() != wanted {
        return Err(format!("it has {} bytes, an address of its form has {wanted}", body.len()));
    }
    if form == Form::Subaddress {
        return Err("it is a subaddress, to which no block can be mined: give the wallet's primary address".into());
    }
    Ok(network)
}

fn prefix(byte: u8) -> Option<(Network, Form)> {
    Some(match byte {
        18 => (Network::Main, Form::Primary),
        19 => (Network::Main, Form::Integrated),
        42 => (Network::Main, Form::Subaddress),
        53 => (Network::Test, Form::Primary),
        54 => (Network::Test, Form::Integrated),
        63 => (Network::Test, Form::Subaddress),
        24 => (Network::Stage, Form::Primary),
        25 => (Network::Stage, Form::Integrated),
        36 => (Network::Stage, Form::Subaddress),
        _ => return None,
    })
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    if !(90..=110).contains(&text.len()) {
        return Err(format!("a Monero address has 95 or 106 characters, this has {}", text.chars().count()));
    }
    let mut bytes = Vec::with_capacity(80);
    for block in text.as_bytes().chunks(11) {
        let size = ENCODED.iter().position(|encoded| *encoded == block.len()).ok_or("its length fits no address")?;
        let mut number: u128 = 0;
        for byte in block {
            let digit = ALPHABET.iter().position(|letter| letter == byte);
            let digit = digit.ok_or_else(|| format!("'{}' stands in no address", char::from(*byte).escape_debug()))?;
            number = number * 58 + digit as u128;
        }
        if number >> (8 * size) != 0 {
            return Err("it is no base58 of Monero's: a character is mistyped".into());
        }
        bytes.extend_from_slice(&number.to_be_bytes()[16 - size..]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its keys are the curve's base point: everybody knows its secrets, and nobody would want it.
    const MAIN: &str =
        "44yQXfkWZNmJ8QgRfFWTzmJ8QgRfFWTzmJ8QgRfFWTzmJ7suhUXwdrDJ8QgRfFWTzmJ8QgRfFWTzmJ8QgRfFWTzmCYrSgjJ";

    fn encode(body: &[u8]) -> String {
        let mut bytes = body.to_vec();
        bytes.extend_from_slice(&Keccak256::digest(body)[..CHECKSUM_BYTES]);
        let mut text = String::new();
        for block in bytes.chunks(8) {
            let mut number = block.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
            let mut digits = vec![b'1'; ENCODED[block.len()]];
            for digit in digits.iter_mut().rev() {
                *digit = ALPHABET[(number % 58) as usize];
                number /= 58;
            }
            text.push_str(std::str::from_utf8(&digits).unwrap());
        }
        text
    }

    fn made(prefix: u8, length: usize) -> String {
        let mut body = vec![7; length];
        body[0] = prefix;
        encode(&body)
    }

    #[test]
    fn networks_are_told_apart_and_subaddresses_refused() {
        assert_eq!(check(MAIN), Ok(Network::Main));
        assert_eq!(check(&made(53, 65)), Ok(Network::Test));
        assert_eq!(check(&made(24, 65)), Ok(Network::Stage));
        assert_eq!(check(&made(19, 73)), Ok(Network::Main));
        assert!(check(&made(42, 65)).unwrap_err().contains("subaddress"));
        assert!(check(&made(99, 65)).unwrap_err().contains("no network"));
        assert!(check(&made(18, 73)).unwrap_err().contains("73 bytes"));
    }

    #[test]
    fn any_mistyped_character_is_found() {
        for place in 0..MAIN.len() {
            let mut bytes = MAIN.as_bytes().to_vec();
            bytes[place] = if bytes[place] == b'7' { b'8' } else { b'7' };
            assert!(check(std::str::from_utf8(&bytes).unwrap()).is_err(), "at {place}");
        }
        for wrong in ["", "4", "44AFFq", &MAIN[1..], &format!("{MAIN}A"), &MAIN.replace('4', "0"), &"é".repeat(50)] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
