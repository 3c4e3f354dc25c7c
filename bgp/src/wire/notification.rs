//! NOTIFICATION: numbers, names and the data that has a form of its own.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{DecodeError, Notification};

/// An error code with its subcode. Numbers that nobody has named are kept as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode {
    /// Error code (RFC 4271 §4.5).
    pub code: u8,
    /// Error subcode; 0 is unspecific.
    pub subcode: u8,
}

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal / $subcode:literal, $text:literal;)+) => {
        impl ErrorCode {
            $($(#[doc = $doc])+ pub const $name: Self = Self { code: $code, subcode: $subcode };)+

            /// The registered name of exactly this pair of numbers.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match (self.code, self.subcode) {
                    $(($code, $subcode) => Some($text),)+
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    /// RFC 4271 §6.1.
    CONNECTION_NOT_SYNCHRONIZED = 1 / 1, "connection not synchronized";
    /// RFC 4271 §6.1; data: the length field.
    BAD_MESSAGE_LENGTH = 1 / 2, "bad message length";
    /// RFC 4271 §6.1; data: the type field.
    BAD_MESSAGE_TYPE = 1 / 3, "bad message type";
    /// RFC 4271 §6.2: an OPEN that can't be parsed.
    OPEN_UNSPECIFIC = 2 / 0, "malformed OPEN";
    /// RFC 4271 §6.2; data: the largest version supported, two octets.
    UNSUPPORTED_VERSION_NUMBER = 2 / 1, "unsupported version number";
    /// RFC 4271 §6.2.
    BAD_PEER_AS = 2 / 2, "bad peer AS";
    /// RFC 4271 §6.2, RFC 6286 §2.2.
    BAD_BGP_IDENTIFIER = 2 / 3, "bad BGP identifier";
    /// RFC 4271 §6.2.
    UNSUPPORTED_OPTIONAL_PARAMETER = 2 / 4, "unsupported optional parameter";
    /// RFC 4271 §6.2.
    UNACCEPTABLE_HOLD_TIME = 2 / 6, "unacceptable hold time";
    /// RFC 5492 §5; data: the capabilities that we insist on.
    UNSUPPORTED_CAPABILITY = 2 / 7, "unsupported capability";
    /// RFC 9234 §4.2.
    ROLE_MISMATCH = 2 / 11, "role mismatch";
    /// RFC 4271 §6.3.
    MALFORMED_ATTRIBUTE_LIST = 3 / 1, "malformed attribute list";
    /// RFC 4271 §6.3; data: the attribute.
    UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE = 3 / 2, "unrecognized well-known attribute";
    /// RFC 4271 §6.3; data: the attribute's type code.
    MISSING_WELL_KNOWN_ATTRIBUTE = 3 / 3, "missing well-known attribute";
    /// RFC 4271 §6.3; data: the attribute.
    ATTRIBUTE_FLAGS_ERROR = 3 / 4, "attribute flags error";
    /// RFC 4271 §6.3; data: the attribute.
    ATTRIBUTE_LENGTH_ERROR = 3 / 5, "attribute length error";
    /// RFC 4271 §6.3; data: the attribute.
    INVALID_ORIGIN_ATTRIBUTE = 3 / 6, "invalid ORIGIN attribute";
    /// RFC 4271 §6.3; data: the attribute.
    INVALID_NEXT_HOP_ATTRIBUTE = 3 / 8, "invalid NEXT_HOP attribute";
    /// RFC 4271 §6.3; data: the attribute.
    OPTIONAL_ATTRIBUTE_ERROR = 3 / 9, "optional attribute error";
    /// RFC 4271 §6.3.
    INVALID_NETWORK_FIELD = 3 / 10, "invalid network field";
    /// RFC 4271 §6.3.
    MALFORMED_AS_PATH = 3 / 11, "malformed AS_PATH";
    /// RFC 4271 §6.5.
    HOLD_TIMER_EXPIRED = 4 / 0, "hold timer expired";
    /// RFC 4271 §6.6.
    FSM_UNSPECIFIC = 5 / 0, "finite state machine error";
    /// RFC 6608 §4; data: the message type.
    UNEXPECTED_MESSAGE_IN_OPEN_SENT = 5 / 1, "unexpected message in OpenSent";
    /// RFC 6608 §4; data: the message type.
    UNEXPECTED_MESSAGE_IN_OPEN_CONFIRM = 5 / 2, "unexpected message in OpenConfirm";
    /// RFC 6608 §4; data: the message type.
    UNEXPECTED_MESSAGE_IN_ESTABLISHED = 5 / 3, "unexpected message in Established";
    /// RFC 4271 §6.7.
    CEASE = 6 / 0, "cease";
    /// RFC 4486 §4; data may be AFI, SAFI and the limit.
    MAXIMUM_PREFIXES = 6 / 1, "maximum number of prefixes reached";
    /// RFC 4486 §4; data: a shutdown communication (RFC 9003).
    ADMINISTRATIVE_SHUTDOWN = 6 / 2, "administrative shutdown";
    /// RFC 4486 §4.
    PEER_DECONFIGURED = 6 / 3, "peer de-configured";
    /// RFC 4486 §4; data: a shutdown communication (RFC 9003).
    ADMINISTRATIVE_RESET = 6 / 4, "administrative reset";
    /// RFC 4486 §4.
    CONNECTION_REJECTED = 6 / 5, "connection rejected";
    /// RFC 4486 §4.
    OTHER_CONFIGURATION_CHANGE = 6 / 6, "other configuration change";
    /// RFC 4486 §4.
    CONNECTION_COLLISION_RESOLUTION = 6 / 7, "connection collision resolution";
    /// RFC 4486 §4.
    OUT_OF_RESOURCES = 6 / 8, "out of resources";
    /// RFC 8538 §3.1; data: the NOTIFICATION that it stands for. Ends graceful restart.
    HARD_RESET = 6 / 9, "hard reset";
    /// RFC 9384 §3.
    BFD_DOWN = 6 / 10, "BFD down";
    /// RFC 7313 §5; data: the message.
    ROUTE_REFRESH_INVALID_MESSAGE_LENGTH = 7 / 1, "invalid ROUTE-REFRESH message length";
    /// RFC 9687 §4.
    SEND_HOLD_TIMER_EXPIRED = 8 / 0, "send hold timer expired";
}

impl ErrorCode {
    /// A NOTIFICATION of this kind with data.
    #[must_use]
    pub fn with(self, data: impl Into<Bytes>) -> Notification {
        Notification { code: self.code, subcode: self.subcode, data: data.into() }
    }

    /// The answer to bytes that can't be read, with the reason for people.
    pub(super) fn because(self, reason: &'static str) -> DecodeError {
        DecodeError { notification: self.into(), reason }
    }

    /// The same with the octets that the RFC wants to see in the answer.
    pub(super) fn because_of(self, data: &[u8], reason: &'static str) -> DecodeError {
        DecodeError { notification: self.with(Bytes::copy_from_slice(data)), reason }
    }
}

impl From<ErrorCode> for Notification {
    fn from(error: ErrorCode) -> Self {
        error.with(Bytes::new())
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, subcode } = *self;
        write!(f, "{code}/{subcode} ")?;
        if let Some(name) = self.name() {
            return f.write_str(name);
        }
        match code {
            1 => f.write_str("message header error"),
            2 => f.write_str("OPEN message error"),
            3 => f.write_str("UPDATE message error"),
            4 => f.write_str("hold timer expired"),
            5 => f.write_str("finite state machine error"),
            6 => f.write_str("cease"),
            7 => f.write_str("ROUTE-REFRESH message error"),
            8 => f.write_str("send hold timer expired"),
            _ => f.write_str("unknown error"),
        }
    }
}

/// Octets of a shutdown communication at most (RFC 9003 §2).
const COMMUNICATION_OCTETS: usize = 255;

impl Notification {
    /// The numbers without the data.
    #[must_use]
    pub fn error(&self) -> ErrorCode {
        ErrorCode { code: self.code, subcode: self.subcode }
    }

    /// Administrative shutdown or reset with a word for the peer's operator (RFC 9003 §2); a text longer than
    /// 255 octets is cut at a character.
    #[must_use]
    pub fn with_communication(error: ErrorCode, text: &str) -> Self {
        let mut end = text.len().min(COMMUNICATION_OCTETS);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut data = BytesMut::with_capacity(end + 1);
        data.put_u8(u8::try_from(end).unwrap_or(u8::MAX));
        data.put_slice(&text.as_bytes()[..end]);
        error.with(data)
    }

    /// The shutdown communication, if this NOTIFICATION carries a well-formed one (RFC 9003 §2): a length octet
    /// that lies within the data, then UTF-8.
    #[must_use]
    pub fn communication(&self) -> Option<&str> {
        if !matches!(self.error(), ErrorCode::ADMINISTRATIVE_SHUTDOWN | ErrorCode::ADMINISTRATIVE_RESET) {
            return None;
        }
        let (length, text) = self.data.split_first()?;
        let text = std::str::from_utf8(text.get(..usize::from(*length))?).ok()?;
        (!text.is_empty()).then_some(text)
    }

    /// Wraps this NOTIFICATION into a Hard Reset (RFC 8538 §3.1), which ends graceful restart.
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let mut data = BytesMut::with_capacity(self.data.len() + 2);
        data.put_u8(self.code);
        data.put_u8(self.subcode);
        data.put_slice(&self.data);
        ErrorCode::HARD_RESET.with(data)
    }

    /// What a Hard Reset stands for (RFC 8538 §3.1); `None` if it is none or says nothing.
    #[must_use]
    pub fn hard_reset_reason(&self) -> Option<Self> {
        if self.error() != ErrorCode::HARD_RESET || self.data.len() < 2 {
            return None;
        }
        Some(Self { code: self.data[0], subcode: self.data[1], data: self.data.slice(2..) })
    }
}

impl fmt::Display for Notification {
    /// `6/2 administrative shutdown: "rack 4 moves"`. The text of a peer is quoted and escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)?;
        if let Some(text) = self.communication() {
            write!(f, ": {text:?}")?;
        }
        // One level only: a peer may nest Hard Resets as deep as a message is long.
        if let Some(reason) = self.hard_reset_reason() {
            write!(f, " because of {}", reason.error())?;
            if let Some(text) = reason.communication() {
                write!(f, ": {text:?}")?;
            }
        }
        Ok(())
    }
}
