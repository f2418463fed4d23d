//! Headers of a message, by name.
//!
//! The client crate's own way to them panics on a name that is not UTF-8. One such message would end every run that comes to it, so this
//! file asks the library below.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::{ptr, slice};

use rdkafka::bindings::{rd_kafka_header_get_last, rd_kafka_message_headers, rd_kafka_resp_err_t};
use rdkafka::message::BorrowedMessage;

/// The headers that are asked for.
pub(super) struct Wanted(Vec<(String, CString)>);

impl Wanted {
    /// # Errors
    /// A name holds a NUL.
    pub(super) fn new(names: &[String]) -> anyhow::Result<Self> {
        let named = names
            .iter()
            .map(|name| Ok((name.clone(), CString::new(name.as_str())?)));
        named.collect::<anyhow::Result<_>>().map(Wanted)
    }

    /// Those that a message has, with their last value.
    pub(super) fn of<'w>(&'w self, message: &'w BorrowedMessage<'_>) -> Vec<(&'w str, &'w [u8])> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive, and `headers` is a place for a pointer.
        let found = unsafe { rd_kafka_message_headers(message.ptr(), &mut headers) };
        if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return Vec::new();
        }
        let value = |name: &'w CString| {
            let (mut value, mut size) = (ptr::null(), 0);
            // SAFETY: the headers belong to the message, which is alive; the name ends with a NUL.
            let found = unsafe { rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut size) };
            if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            if value.is_null() {
                return Some(&[][..]);
            }
            // SAFETY: `size` bytes stand at `value` as long as the message is alive, which `'w` says.
            Some(unsafe { slice::from_raw_parts(value.cast::<u8>(), size) })
        };
        let all = self.0.iter();
        all.filter_map(|(name, c_name)| Some((name.as_str(), value(c_name)?)))
            .collect()
    }
}
