use super::*;

const INTERNAL: Codec = Codec { four_octet_as: true, internal: true };

fn decode_one(bytes: &[u8], codec: Codec) -> Result<Option<Message>, DecodeError> {
    let mut buffer = BytesMut::from(bytes);
    let message = decode(&mut buffer, codec);
    if let Ok(Some(_)) = message {
        assert!(buffer.is_empty(), "octets left over");
    }
    message
}

#[test]
fn keepalive_is_nineteen_octets() {
    let mut out = BytesMut::new();
    assert_eq!(Message::Keepalive.encode(INTERNAL, &mut out), 1);
    assert_eq!(out.len(), HEADER);
    assert_eq!(decode_one(&out, INTERNAL), Ok(Some(Message::Keepalive)));
}

#[test]
fn notification_names_and_communication() {
    let notification = Notification::with_communication(ErrorCode::ADMINISTRATIVE_SHUTDOWN, "rack 4 moves");
    assert_eq!(notification.to_string(), "6/2 administrative shutdown: \"rack 4 moves\"");
    assert_eq!(
        notification.into_hard_reset().to_string(),
        "6/9 hard reset because of 6/2 administrative shutdown: \"rack 4 moves\""
    );
    assert_eq!(ErrorCode { code: 6, subcode: 77 }.to_string(), "6/77 cease");
    assert_eq!(ErrorCode { code: 99, subcode: 1 }.to_string(), "99/1 unknown error");
}
