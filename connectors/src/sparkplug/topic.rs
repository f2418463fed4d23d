//! Topics: `spBv1.0/GROUP/KIND/NODE/DEVICE`.

/// The first level of every topic.
const NAMESPACE: &str = "spBv1.0";

/// What a message of an edge node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Birth,
    Data,
    Death,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topic<'t> {
    pub kind: Kind,
    pub group: &'t str,
    pub node: &'t str,
    /// None: the node itself.
    pub device: Option<&'t str>,
}

impl<'t> Topic<'t> {
    /// None: not of an edge node.
    pub fn parse(topic: &'t str) -> Option<Self> {
        let mut levels = topic.split('/');
        if levels.next()? != NAMESPACE {
            return None;
        }
        let (group, kind, node, device) = (levels.next()?, levels.next()?, levels.next()?, levels.next());
        let (kind, of_device) = match kind {
            "NBIRTH" => (Kind::Birth, false),
            "NDATA" => (Kind::Data, false),
            "NDEATH" => (Kind::Death, false),
            "DBIRTH" => (Kind::Birth, true),
            "DDATA" => (Kind::Data, true),
            "DDEATH" => (Kind::Death, true),
            _ => return None,
        };
        let topic = Topic {
            kind,
            group,
            node,
            device,
        };
        (device.is_some() == of_device && levels.next().is_none()).then_some(topic)
    }
}

/// What to subscribe to for all edge nodes of a group. Commands, our own among them, are left out.
pub(super) fn filters(group: &str) -> Vec<String> {
    let of = |kind: &str, below: &str| format!("{NAMESPACE}/{group}/{kind}/{below}");
    let node = ["NBIRTH", "NDATA", "NDEATH"].map(|kind| of(kind, "+"));
    let device = ["DBIRTH", "DDATA", "DDEATH"].map(|kind| of(kind, "+/+"));
    node.into_iter().chain(device).collect()
}

/// Where an edge node takes commands.
pub(super) fn command(group: &str, node: &str) -> String {
    format!("{NAMESPACE}/{group}/NCMD/{node}")
}

/// Where a host says whether it is there.
pub(super) fn state(host_id: &str) -> String {
    format!("{NAMESPACE}/STATE/{host_id}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn topics() {
        let check = |topic: &str, expect: Option<(Kind, &str, &str, Option<&str>)>| {
            let got = Topic::parse(topic).map(|topic| (topic.kind, topic.group, topic.node, topic.device));
            assert_eq!(got, expect, "{topic}");
        };
        check("spBv1.0/plant/NBIRTH/edge", Some((Kind::Birth, "plant", "edge", None)));
        check(
            "spBv1.0/plant/DDATA/edge/press",
            Some((Kind::Data, "plant", "edge", Some("press"))),
        );
        check("spBv1.0/plant/NDEATH/edge", Some((Kind::Death, "plant", "edge", None)));
        check("spBv1.0/plant/NDATA/edge/press", None);
        check("spBv1.0/plant/DDATA/edge", None);
        check("spBv1.0/plant/DDATA/edge/press/x", None);
        check("spBv1.0/plant/NCMD/edge", None);
        check("spBv1.0/STATE/host", None);
        check("spAv1.0/plant/NBIRTH/edge", None);
        check("", None);
    }

    #[test]
    fn what_is_subscribed_to_is_understood() {
        for filter in filters("+") {
            assert!(Topic::parse(&filter).is_some(), "{filter}");
        }
    }
}
