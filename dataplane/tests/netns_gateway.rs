//! FTP and TFTP through the firewall: real control and data connections, active and passive, both families, with and
//! without source NAT, where policy permits the control connection alone.

mod common;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::{
    engine::Engine,
    ruleset::{Action, Gateways, HookMode, Policy, Ruleset, Service, ServiceMatch},
};
use bulkhead_testkit::{Host, Topology, patience};

const PATIENCE: Duration = Duration::from_secs(3);
const CONTENT: &[u8] = b"what the transfer carries\r\n";

/// `inside` may open FTP and TFTP towards `outside`, and nothing else.
fn rules(hook: HookMode, nat: bool, gateways: Gateways) -> Ruleset {
    let port = |protocol, port| ServiceMatch::Ports {
        protocol,
        first: port,
        last: port,
    };
    Ruleset {
        services: vec![Service {
            name: "transfer".into(),
            matches: vec![port(6, 21), port(17, 69)],
            ..Service::default()
        }],
        policies: vec![Policy {
            name: "transfer".into(),
            from: vec![0],
            to: vec![1],
            service: vec![0],
            action: Action::Permit,
            ..Policy::default()
        }],
        zones: common::ruleset(hook, nat)
            .zones
            .into_iter()
            .map(|zone| bulkhead_dataplane::ruleset::Zone {
                host_inbound: vec![],
                ..zone
            })
            .collect(),
        gateways,
        ..common::ruleset(hook, nat)
    }
}

/// One line of a control connection.
fn line(reader: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    ensure!(reader.read_line(&mut line)? > 0, "the control connection closed");
    Ok(line.trim_end().to_owned())
}

fn patient(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(patience(PATIENCE)))?;
    stream.set_write_timeout(Some(patience(PATIENCE)))?;
    Ok(stream)
}

/// A connection within our patience.
fn connect(to: SocketAddr) -> Result<TcpStream> {
    patient(TcpStream::connect_timeout(&to, patience(PATIENCE))?)
}

/// An FTP server for one control connection: as many transfers as are asked for.
fn server(host: &Host, listen: SocketAddr) -> Result<JoinHandle<Result<()>>> {
    let listener = host.namespace.run(|| TcpListener::bind(listen))?;
    host.namespace.spawn(move || serve(&listener))
}

fn serve(listener: &TcpListener) -> Result<()> {
    let (stream, _) = listener.accept()?;
    let stream = patient(stream)?;
    let own = stream.local_addr()?.ip();
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut control = stream;
    control.write_all(b"220 ready\r\n")?;
    let mut active: Option<SocketAddr> = None;
    let mut passive: Option<TcpListener> = None;
    loop {
        let command = line(&mut reader)?;
        let (word, argument) = command.split_once(' ').unwrap_or((command.as_str(), ""));
        match word {
            "PORT" => {
                let n: Vec<u8> = argument
                    .split(',')
                    .map(str::parse)
                    .collect::<Result<_, _>>()
                    .context(command.clone())?;
                active = Some(([n[0], n[1], n[2], n[3]], u16::from_be_bytes([n[4], n[5]])).into());
                control.write_all(b"200 active\r\n")?;
            }
            "EPRT" => {
                let fields: Vec<&str> = argument.split('|').collect();
                active = Some((fields[2].parse::<IpAddr>()?, fields[3].parse()?).into());
                control.write_all(b"200 active\r\n")?;
            }
            "PASV" | "EPSV" => {
                let listener = TcpListener::bind((own, 0))?;
                let port = listener.local_addr()?.port();
                let answer = match own {
                    IpAddr::V4(v4) if word == "PASV" => {
                        let [a, b, c, d] = v4.octets();
                        let (high, low) = (port >> 8, port & 0xff);
                        format!("227 Entering Passive Mode ({a},{b},{c},{d},{high},{low})\r\n")
                    }
                    _ => format!("229 Entering Extended Passive Mode (|||{port}|)\r\n"),
                };
                passive = Some(listener);
                control.write_all(answer.as_bytes())?;
            }
            "RETR" => {
                let data = match (active.take(), passive.take()) {
                    (Some(to), _) => connect(to),
                    (None, Some(listener)) => {
                        listener.set_nonblocking(false)?;
                        listener.accept().map_err(Into::into).map(|(stream, _)| stream)
                    }
                    (None, None) => anyhow::bail!("RETR without a data connection"),
                };
                match data {
                    Ok(mut data) => {
                        data.write_all(CONTENT)?;
                        drop(data);
                        control.write_all(b"226 done\r\n")?;
                    }
                    Err(_) => control.write_all(b"425 no data connection\r\n")?,
                }
            }
            "QUIT" => {
                control.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            _ => control.write_all(b"500 what\r\n")?,
        }
    }
}

/// One active and one passive transfer over one control connection, both through whatever the firewall makes of them.
/// Returns the server's last words about each.
fn transfers(client: &Host, to: SocketAddr) -> Result<[String; 2]> {
    client.namespace.run(|| {
        let control = connect(to)?;
        let own = control.local_addr()?.ip();
        let mut reader = BufReader::new(control.try_clone()?);
        let mut control = control;
        ensure!(line(&mut reader)?.starts_with("220"));
        let listener = TcpListener::bind((own, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let announce = match own {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("PORT {a},{b},{c},{d},{},{}\r\n", port >> 8, port & 0xff)
            }
            IpAddr::V6(v6) => format!("EPRT |2|{v6}|{port}|\r\n"),
        };
        control.write_all(announce.as_bytes())?;
        ensure!(line(&mut reader)?.starts_with("200"));
        control.write_all(b"RETR file\r\n")?;
        let active = line(&mut reader)?;
        if active.starts_with("226") {
            let (mut data, _) = listener.accept()?;
            data.set_nonblocking(false)?;
            data.set_read_timeout(Some(patience(PATIENCE)))?;
            let mut content = Vec::new();
            data.read_to_end(&mut content)?;
            ensure!(content == CONTENT, "active: {content:?}");
        }
        control.write_all(if own.is_ipv4() { b"PASV\r\n" } else { b"EPSV\r\n" })?;
        let answer = line(&mut reader)?;
        let port = if own.is_ipv4() {
            let inside = answer.split(['(', ')']).nth(1).context(answer.clone())?;
            let n: Vec<u8> = inside.split(',').map(str::parse).collect::<Result<_, _>>()?;
            u16::from_be_bytes([n[4], n[5]])
        } else {
            answer.split('|').nth(3).context(answer.clone())?.parse()?
        };
        let passive = match connect((to.ip(), port).into()) {
            Ok(mut data) => {
                control.write_all(b"RETR file\r\n")?;
                let mut content = Vec::new();
                data.read_to_end(&mut content)?;
                ensure!(content == CONTENT, "passive: {content:?}");
                line(&mut reader)?
            }
            Err(error) => error.to_string(),
        };
        control.write_all(b"QUIT\r\n")?;
        Ok([active, passive])
    })
}

fn both_families(lab: &Topology, engine: &Engine, want: bool) -> Result<()> {
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    for to in [outside.v4_port(21), outside.v6_port(21)] {
        let server = server(outside, to)?;
        let words = transfers(inside, to)
            .with_context(|| format!("{to}: {:#?} {:#?}", engine.counters(), engine.recent_events(10)))?;
        for said in words {
            assert_eq!(
                said.starts_with("226"),
                want,
                "{to}: {said}; {:#?}",
                engine.counters()
            );
        }
        if want {
            server.join().expect("the server")?;
        }
    }
    Ok(())
}

fn ftp(hook: HookMode, nat: bool) -> Result<()> {
    let lab = common::topology(|host| host);
    let gateways = Gateways {
        ftp: true,
        tftp: false,
    };
    let engine = common::start(&lab, rules(hook, nat, gateways));
    both_families(&lab, &engine, true)?;
    assert!(engine.counters()?["frames_injected"] > 0);
    Ok(())
}

#[test]
fn netns_ftp_over_tcx() -> Result<()> {
    ftp(HookMode::Tcx, false)
}

#[test]
fn netns_ftp_over_tcx_with_source_nat() -> Result<()> {
    ftp(HookMode::Tcx, true)
}

#[test]
fn netns_ftp_over_forced_xdp_with_source_nat() -> Result<()> {
    ftp(HookMode::Xdp, true)
}

/// A command of several segments arrives as one aggregate, longer than the interface's MTU: it is put back in segments.
#[test]
fn netns_ftp_commands_of_several_segments_pass() -> Result<()> {
    const BYTES: usize = 6000;
    let lab = common::topology(|host| host);
    let gateways = Gateways {
        ftp: true,
        tftp: false,
    };
    let engine = common::start(&lab, rules(HookMode::Tcx, true, gateways));
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    for to in [outside.v4_port(21), outside.v6_port(21)] {
        let listener = outside.namespace.run(|| TcpListener::bind(to))?;
        let server = outside.namespace.spawn(move || -> Result<usize> {
            let stream = patient(listener.accept()?.0)?;
            (&stream).write_all(b"220 ready\r\n")?;
            Ok(line(&mut BufReader::new(stream))?.len())
        })?;
        inside.namespace.run(|| -> Result<()> {
            let mut control = connect(to)?;
            ensure!(line(&mut BufReader::new(control.try_clone()?))?.starts_with("220"));
            control.write_all(&[&vec![b'x'; BYTES][..], b"\r\n"].concat())?;
            Ok(())
        })?;
        assert_eq!(server.join().expect("the server")?, BYTES);
    }
    let counters = engine.counters()?;
    assert_eq!(counters["gateway_lost"], 0, "{counters:#?}");
    Ok(())
}

#[test]
fn netns_ftp_without_the_gateway_has_no_data_connection() -> Result<()> {
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, rules(HookMode::Tcx, false, Gateways::default()));
    both_families(&lab, &engine, false)
}

#[test]
fn netns_tftp_answers_from_another_port() -> Result<()> {
    for (nat, tftp) in [(false, true), (true, true), (true, false)] {
        let lab = common::topology(|host| host);
        let gateways = Gateways { ftp: false, tftp };
        let engine = common::start(&lab, rules(HookMode::Tcx, nat, gateways));
        let (inside, outside) = (lab.host("inside"), lab.host("outside"));
        for to in [outside.v4_port(69), outside.v6_port(69)] {
            let socket = outside.namespace.run(|| UdpSocket::bind(to))?;
            socket.set_read_timeout(Some(patience(PATIENCE)))?;
            let any: SocketAddr = if to.is_ipv4() {
                ([0, 0, 0, 0], 0).into()
            } else {
                ([0; 16], 0).into()
            };
            let client = inside.namespace.run(|| UdpSocket::bind(any))?;
            let wait = if tftp { PATIENCE } else { PATIENCE / 10 };
            client.set_read_timeout(Some(patience(wait)))?;
            client.send_to(b"\0\x01file\0octet\0", to)?;
            let mut buffer = [0; 600];
            let (_, asker) = socket.recv_from(&mut buffer)?;
            let transfer = outside.namespace.run(|| UdpSocket::bind((to.ip(), 0)))?;
            transfer.set_read_timeout(Some(patience(PATIENCE)))?;
            transfer.send_to(b"\0\x03\0\x01data", asker)?;
            let answered = client.recv_from(&mut buffer);
            assert_eq!(answered.is_ok(), tftp, "{to}: {:#?}", engine.counters());
            if let Ok((length, from)) = answered {
                assert_eq!(&buffer[..length], b"\0\x03\0\x01data");
                client.send_to(b"\0\x04\0\x01", from)?;
                let (_, acknowledger) = transfer.recv_from(&mut buffer)?;
                assert_eq!(acknowledger, asker, "translated like the request");
            }
        }
    }
    Ok(())
}
