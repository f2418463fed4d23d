//! Where the processes of a cluster are: a hosts file, and which of its lines this machine is.

use std::net::TcpListener;
use std::path::Path;

use anyhow::Context;

use super::supervise::round::Addresses;

/// One `host:port` a line, one line for each process; `#` begins a comment.
///
/// # Errors
/// Names the line that isn't one.
pub fn read(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    parse(&text).with_context(|| file.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<Vec<String>> {
    let mut addresses: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let address = line.split('#').next().unwrap_or_default().trim();
        if address.is_empty() {
            continue;
        }
        let number = number + 1;
        let port = address
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
            .map(|(_, port)| port.parse::<u16>());
        anyhow::ensure!(
            matches!(port, Some(Ok(1..))),
            "line {number}: `{address}` is not of the form host:port, like press-hall:7000"
        );
        if let Some(before) = addresses.iter().position(|other| other == address) {
            anyhow::bail!("line {number}: {address} is process {before} already; each process has its own port");
        }
        addresses.push(address.to_owned());
    }
    anyhow::ensure!(
        !addresses.is_empty(),
        "no hosts; write one host:port a line, one line for each process"
    );
    Ok(addresses)
}

/// All processes' addresses, and the indices of those to start here.
///
/// # Errors
/// What doesn't fit together.
pub fn resolve(
    hosts: Option<Vec<String>>,
    processes: Option<usize>,
    chosen: &[usize],
) -> anyhow::Result<(Addresses, Vec<usize>)> {
    let Some(addresses) = hosts else {
        anyhow::ensure!(chosen.is_empty(), "--host needs --hosts FILE");
        let processes = processes.context("--processes N or --hosts FILE says how many processes there are")?;
        return Ok((Addresses::Free(processes), (0..processes).collect()));
    };
    let of = addresses.len();
    if let Some(processes) = processes {
        anyhow::ensure!(processes == of, "--processes {processes}, but the hosts file has {of}");
    }
    let mut here: Vec<usize> = if chosen.is_empty() {
        (0..of).filter(|process| is_here(&addresses[*process])).collect()
    } else {
        chosen.to_vec()
    };
    here.sort_unstable();
    here.dedup();
    if let Some(wrong) = here.iter().find(|process| of <= **process) {
        anyhow::bail!("--host {wrong}, but the hosts file has processes 0 to {}", of - 1);
    }
    anyhow::ensure!(
        !here.is_empty(),
        "no line of the hosts file is this machine; --host 0,1 says which are"
    );
    Ok((Addresses::Fixed(addresses), here))
}

/// Only an address of this machine can be listened on.
fn is_here(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, _)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        TcpListener::bind((host, 0)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn lines_comments_and_blanks() {
        let text = "# the press hall\n10.0.0.1:7000\n\n localhost:7001 # this one\n[::1]:7002\n";
        assert_eq!(parse(text).unwrap(), ["10.0.0.1:7000", "localhost:7001", "[::1]:7002"]);
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, named) in [
            ("a:1\nb", "line 2: `b`"),
            ("a:70000", "line 1"),
            ("a:0", "line 1"),
            (":7000", "line 1"),
            ("a:1\na:1", "line 2: a:1 is process 0 already"),
            ("# nothing\n", "no hosts"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn those_of_this_machine_are_started() {
        // 192.0.2.0/24 is for documents: nobody's.
        let hosts = || {
            Some(vec![
                "192.0.2.7:7000".to_owned(),
                "127.0.0.1:7001".into(),
                "localhost:7002".into(),
            ])
        };
        assert_eq!(resolve(hosts(), None, &[]).unwrap().1, [1, 2]);
        assert_eq!(resolve(hosts(), Some(3), &[2, 0]).unwrap().1, [0, 2]);
        assert_eq!(resolve(None, Some(2), &[]).unwrap().1, [0, 1]);
        for (hosts, processes, chosen, named) in [
            (hosts(), Some(2), vec![], "--processes 2"),
            (hosts(), None, vec![3], "--host 3"),
            (Some(vec!["192.0.2.7:7000".to_owned()]), None, vec![], "no line"),
            (None, None, vec![], "--processes N"),
            (None, Some(2), vec![0], "--hosts FILE"),
        ] {
            let error = resolve(hosts, processes, &chosen).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
