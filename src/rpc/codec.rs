//! The two codings of a control message.
//!
//! JSON is what existing clients of the local socket speak; unknown fields are ignored. Between
//! nodes it is bincode 2 with a limit and with every byte accounted for: without a limit nine
//! bytes can ask for 64 GiB, and trailing bytes would be accepted in silence. Its layout is
//! positional, so the version is in the ALPN of the connection.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Kind, PAYLOAD_MAX};
use crate::error::{Error, Result};

/// A message that both codings can carry.
pub trait Wire: Serialize + DeserializeOwned + bincode::Encode + bincode::Decode<()> {}

impl<T: Serialize + DeserializeOwned + bincode::Encode + bincode::Decode<()>> Wire for T {}

/// How control messages are written on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// The local socket.
    Json,
    /// Between nodes.
    Binary,
}

impl Coding {
    /// The kind of frame that carries it.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Json => Kind::Json,
            Self::Binary => Kind::Binary,
        }
    }

    /// Writes a message.
    ///
    /// # Errors
    ///
    /// `internal` when it cannot be written at all.
    pub fn encode<T: Wire>(self, message: &T) -> Result<Vec<u8>> {
        match self {
            Self::Json => serde_json::to_vec(message).map_err(Error::internal),
            Self::Binary => bincode::encode_to_vec(message, config()).map_err(Error::internal),
        }
    }

    /// Reads a message, all of it.
    ///
    /// # Errors
    ///
    /// `bad_request` when it is not one.
    pub fn decode<T: Wire>(self, bytes: &[u8]) -> Result<T> {
        match self {
            Self::Json => {
                serde_json::from_slice(bytes).map_err(|error| Error::bad_request(error.to_string()))
            }
            Self::Binary => {
                let (message, used) = bincode::decode_from_slice(bytes, config())
                    .map_err(|error| Error::bad_request(error.to_string()))?;
                if used == bytes.len() {
                    Ok(message)
                } else {
                    Err(Error::bad_request(format!(
                        "{} bytes after the message",
                        bytes.len() - used
                    )))
                }
            }
        }
    }
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<PAYLOAD_MAX>()
}

/// A JSON value inside a message: itself in JSON, its text in bincode.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Json(pub serde_json::Value);

impl bincode::Encode for Json {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        bincode::Encode::encode(&self.0.to_string(), encoder)
    }
}

impl<Context> bincode::Decode<Context> for Json {
    fn decode<D: bincode::de::Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let text: String = bincode::Decode::decode(decoder)?;
        serde_json::from_str(&text)
            .map(Self)
            .map_err(|error| bincode::error::DecodeError::OtherString(error.to_string()))
    }
}

bincode::impl_borrow_decode!(Json);

/// Bytes inside a message: base64 in JSON (standard alphabet, padded), themselves in bincode.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> serde::Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine;
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_codings_round_trip() {
        let message = (
            Json(serde_json::json!({"a": [1, "x"]})),
            Base64(vec![0, 255]),
        );
        for coding in [Coding::Json, Coding::Binary] {
            let bytes = coding.encode(&message).unwrap();
            assert_eq!(coding.decode::<(Json, Base64)>(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn u14_a_short_message_cannot_ask_for_much_memory() {
        // A string of 2^36 bytes, announced in nine.
        let hostile = [253, 0, 0, 0, 0, 16, 0, 0, 0];
        assert_eq!(
            Coding::Binary.decode::<String>(&hostile).unwrap_err().code,
            "bad_request"
        );
    }

    /// What a peer may send where a call is due.
    #[test]
    fn a5_rpc_what_is_no_message_is_refused() {
        use crate::node::proxy::Envelope;
        use crate::verb::{Call, Reply};
        let max = [&[253][..], &[0xff; 8]].concat();
        let of_2_60 = [&[253][..], &(1_u64 << 60).to_le_bytes()].concat();
        let rows: &[(&str, Vec<u8>)] = &[
            ("nothing", vec![]),
            ("a variant 250", vec![250]),
            ("a variant of 2^16 - 1", vec![251, 0xff, 0xff]),
            ("a variant of 2^32 - 1", vec![252, 0xff, 0xff, 0xff, 0xff]),
            ("a variant of 2^64 - 1", max.clone()),
            ("a number of a kind that is none", vec![255; 16]),
            ("half a number", vec![251, 1]),
            ("text of 2^60 bytes", [&[0][..], &of_2_60].concat()),
            ("text of 2^64 - 1 bytes", [&[0][..], &max].concat()),
            ("text that is none", vec![0, 2, 0xc3, 0x28]),
            ("a choice of three", vec![0, 1, b'x', 2]),
            ("16 MiB of 0xff", vec![0xff; 16 << 20]),
        ];
        for (row, bytes) in rows {
            for error in [
                Coding::Binary.decode::<Envelope>(bytes).err(),
                Coding::Binary.decode::<Call>(bytes).err(),
                Coding::Binary.decode::<Vec<String>>(bytes).err(),
                Coding::Binary.decode::<Reply>(bytes).err(),
            ] {
                let code = error.map(|error| error.code);
                assert!(
                    code.is_none() || code.as_deref() == Some("bad_request"),
                    "{row}: {code:?}"
                );
            }
            let envelope = Coding::Binary.decode::<Envelope>(bytes);
            assert!(envelope.is_err(), "{row} is a call");
        }
        // A whole one, and a byte too many, and each beginning of it.
        let whole = Envelope {
            session: Some((7, None)),
            grant: None,
            call: serde_json::from_str(r#"{"type":"MsgSend","to_name":"a","body":"b"}"#).unwrap(),
        };
        let whole = Coding::Binary.encode(&whole).unwrap();
        assert!(Coding::Binary.decode::<Envelope>(&whole).is_ok());
        for len in 0..whole.len() {
            let cut = Coding::Binary.decode::<Envelope>(&whole[..len]);
            assert!(cut.is_err(), "cut to {len} bytes");
        }
        let more = [&whole[..], &[0]].concat();
        assert!(Coding::Binary.decode::<Envelope>(&more).is_err());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert_eq!(
            Coding::Binary.decode::<u8>(&[1, 2]).unwrap_err().code,
            "bad_request"
        );
    }
}
