//! gRPC's server reflection: lets `grpcurl` and its like call a server whose `.proto` files they do not have.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use prost_reflect::FileDescriptor;
use synod_api::reflection as pb;
use synod_api::reflection::server_reflection_request::MessageRequest as Ask;
use synod_api::reflection::server_reflection_response::MessageResponse as Answer;

use super::decode;
use super::payload::Payload;
use super::stream::{Inbox, Outbox};
use crate::status::{Code, Status};

/// Answers one question after the other.
pub(super) async fn serve(mut inbox: Inbox, outbox: Outbox) -> Result<(), Status> {
    while let Some(body) = inbox.next().await? {
        let request: pb::ServerReflectionRequest = decode(body)?;
        let reply = pb::ServerReflectionResponse {
            valid_host: request.host.clone(),
            message_response: Some(answer(request.message_request.as_ref())),
            original_request: Some(request),
        };
        outbox.send(Payload::encode(&reply)).await;
    }
    Ok(())
}

fn answer(ask: Option<&Ask>) -> Answer {
    let pool = synod_api::descriptors();
    match ask {
        Some(Ask::ListServices(_)) => {
            let service =
                pool.services().map(|service| pb::ServiceResponse { name: service.full_name().to_owned() });
            Answer::ListServicesResponse(pb::ListServiceResponse { service: service.collect() })
        }
        Some(Ask::FileByFilename(name)) => match pool.get_file_by_name(name) {
            Some(file) => with_imports(&file),
            None => missing(&format!("file {name}")),
        },
        Some(Ask::FileContainingSymbol(symbol)) => match file_of(symbol) {
            Some(file) => with_imports(&file),
            None => missing(&format!("symbol {symbol}")),
        },
        Some(Ask::AllExtensionNumbersOfType(name)) => match pool.get_message_by_name(name) {
            Some(_) => Answer::AllExtensionNumbersResponse(pb::ExtensionNumberResponse {
                base_type_name: name.clone(),
                extension_number: Vec::new(),
            }),
            None => missing(&format!("type {name}")),
        },
        Some(Ask::FileContainingExtension(extension)) => {
            missing(&format!("extension {} of {}", extension.extension_number, extension.containing_type))
        }
        None => Answer::ErrorResponse(pb::ErrorResponse {
            error_code: Code::InvalidArgument as i32,
            error_message: "the request asks nothing".to_owned(),
        }),
    }
}

/// The file that declares a message, an enum, a service, or a member of one of them.
fn file_of(symbol: &str) -> Option<FileDescriptor> {
    let pool = synod_api::descriptors();
    let declared = |name: &str| {
        let message = pool.get_message_by_name(name).map(|found| found.parent_file());
        let service = || pool.get_service_by_name(name).map(|found| found.parent_file());
        let choices = || pool.get_enum_by_name(name).map(|found| found.parent_file());
        message.or_else(service).or_else(choices)
    };
    declared(symbol).or_else(|| symbol.rsplit_once('.').and_then(|(parent, _)| declared(parent)))
}

fn with_imports(file: &FileDescriptor) -> Answer {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    let mut waiting = vec![file.clone()];
    while let Some(file) = waiting.pop() {
        if seen.insert(file.name().to_owned()) {
            files.push(Bytes::from(file.file_descriptor_proto().encode_to_vec()));
            waiting.extend(file.dependencies());
        }
    }
    Answer::FileDescriptorResponse(pb::FileDescriptorResponse { file_descriptor_proto: files })
}

fn missing(what: &str) -> Answer {
    Answer::ErrorResponse(pb::ErrorResponse {
        error_code: Code::NotFound as i32,
        error_message: format!("not found: {what}"),
    })
}
