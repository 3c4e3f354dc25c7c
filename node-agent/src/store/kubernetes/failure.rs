//! What the API server's answers mean, in words that say what to do.

use kube::Error;

use super::objects::GROUP;
use crate::store::remote::backend::Failure;

/// The object does not exist. (A resource that does not exist has the same code, and is another matter.)
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404 && status.reason == "NotFound"
        && status.details.as_ref().is_some_and(|details| !details.name.is_empty()))
}

pub(super) fn has_code(error: &Error, code: u16) -> bool {
    matches!(error, Error::Api(status) if status.code == code)
}

/// The server is well and has understood, and does not do it.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Api(status) if matches!(status.code, 400 | 403 | 405 | 413 | 415 | 422))
}

/// Another connection, or a token that is read again, may mend it.
pub(super) fn is_of_the_connection(error: &Error) -> bool {
    let Error::Api(status) = error else { return true };
    status.code == 401
}

/// `what` was tried: a verb of the API.
pub(super) fn told(what: &str, error: &Error) -> Failure {
    let Error::Api(status) = error else {
        return Failure::server(format!(
            "the Kubernetes API server does not answer ({}): see whether it runs and is reached from here; before kube-proxy \
             runs, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT say where it is",
            crate::telemetry::chain(error)
        ));
    };
    let message = &status.message;
    match status.code {
        401 => Failure::server(
            "the Kubernetes API server does not know us (401): the token or certificate is wrong or has expired; it is read \
             again with every attempt",
        ),
        403 => Failure::server(format!(
            "the Kubernetes API server forbids to {what} ({message}): grant what the manifests of the installation grant"
        )),
        404 => Failure::server(format!(
            "the Kubernetes API server does not know the resources of {GROUP}: apply the CustomResourceDefinitions \
             (`kubectl apply -f config/deploy/crds`)"
        )),
        400 | 405 | 413 | 415 | 422 => {
            Failure::record(format!("the Kubernetes API server refuses it: {message}"))
        }
        409 => Failure::record(format!("somebody else has changed it meanwhile: {message}")),
        410 => Failure::server("what was read is too old by now; it is listed again"),
        429 => Failure::server(format!("the Kubernetes API server has too much to do (429): {message}")),
        code => Failure::server(format!("the Kubernetes API server failed to {what} ({code}): {message}")),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16, reason: &str, message: &str) -> Error {
        Error::Api(Status::failure(message, reason).with_code(code).boxed())
    }

    #[test]
    fn what_is_missing_says_what_to_do() {
        let missing = api(404, "Failed to parse error data", "404 page not found");
        assert!(!is_absent(&missing), "the resource is missing, not the object");
        assert!(told("list", &missing).to_string().contains("kubectl apply -f config/deploy/crds"));
        let denied = api(403, "Forbidden", "noderecords.pairway.dev is forbidden: ...");
        assert!(
            matches!(told("list", &denied), Failure::Server(text) if text.contains("noderecords.pairway.dev"))
        );
        assert!(!is_of_the_connection(&denied) && is_of_the_connection(&api(401, "Unauthorized", "")));
        assert!(is_refusal(&denied) && !is_refusal(&api(401, "Unauthorized", "")));
        assert!(matches!(told("create", &api(422, "Invalid", "spec.vni: ...")), Failure::Record(_)));
        assert!(matches!(told("create", &api(500, "InternalError", "etcd")), Failure::Server(_)));
    }

    #[test]
    fn an_object_that_is_missing_is_known_by_its_name() {
        let mut status = Status::failure("not found", "NotFound").with_code(404);
        assert!(!is_absent(&Error::Api(status.clone().boxed())));
        status.details = Some(kube::core::response::StatusDetails {
            name: "n1".to_owned(),
            group: GROUP.to_owned(),
            kind: "noderecords".to_owned(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        });
        assert!(is_absent(&Error::Api(status.boxed())));
    }
}
