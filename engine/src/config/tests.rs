use super::*;

fn load(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mailrail.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path)
}

#[test]
fn the_reference_is_a_working_configuration_with_the_defaults() {
    let config = load(Config::reference()).unwrap();
    let least = load("hostname = \"mta.example.net\"\n").unwrap();
    assert_eq!(config.delivery.max_age, least.delivery.max_age);
    assert_eq!(config.delivery.retry, least.delivery.retry);
    assert_eq!(config.delivery.connections, least.delivery.connections);
    assert_eq!(config.delivery.messages_per_connection, least.delivery.messages_per_connection);
    assert_eq!(config.delivery.connect_timeout, least.delivery.connect_timeout);
    assert_eq!(config.memory, least.memory);
    assert_eq!(config.spool.segment_size, least.spool.segment_size);
    assert_eq!(config.spool.max_bytes, least.spool.max_bytes);
    assert_eq!(config.events.max_file_size, least.events.max_file_size);
    assert_eq!(config.dns.timeout, least.dns.timeout);
    let listener = &load("hostname = \"a.b\"\n[[listener]]\naddress = \"127.0.0.1:2525\"\n").unwrap().listeners[0];
    assert_eq!(listener.max_size, config.listeners[0].max_size);
    assert_eq!(listener.max_connections, config.listeners[0].max_connections);
    assert_eq!(listener.max_connections_per_ip, config.listeners[0].max_connections_per_ip);
    assert_eq!(listener.max_recipients, config.listeners[0].max_recipients);
    assert_eq!(listener.idle_timeout, config.listeners[0].idle_timeout);
    assert_eq!(listener.allow, config.listeners[0].allow);
}

#[test]
fn an_error_is_one_line_with_file_line_and_key() {
    let listener = "[[listener]]\naddress = \"127.0.0.1:25\"\n";
    for (text, line, wanted) in [
        ("hostnam = \"a.b\"\n", 1, "unknown key \"hostnam\"; did you mean \"hostname\"?"),
        ("data_dir = \"x\"\n", 1, "missing field `hostname`"),
        ("hostname = \"a b\"\n", 1, "is not a host name"),
        ("hostname = \"a.b\"\nshards = 2\n[limits]\nmemory = \"32MiB\"\n", 3, "memory must be 52MiB at least"),
        ("hostname = \"a.b\"\nshards = 0\n", 2, "shards must be 1 to 256"),
        (&format!("hostname = \"a.b\"\n{listener}alow = []\n"), 4, "did you mean \"allow\"?"),
        (&format!("hostname = \"a.b\"\n{listener}allow = [\"10.0.0.0/33\"]\n"), 4, "is not a network"),
        (&format!("hostname = \"a.b\"\n{listener}{listener}"), 5, "127.0.0.1:25 is listed twice"),
        (&format!("hostname = \"a.b\"\n{listener}max_size = \"lots\"\n"), 4, "is not a size"),
        (&format!("hostname = \"a.b\"\n{listener}max_recipients = 0\n"), 4, "max_recipients must be"),
        (&format!("hostname = \"a.b\"\n{listener}tls = {{ cert = \"no.pem\", key = \"no.pem\" }}\n"), 4, "certificate"),
        ("hostname = \"a.b\"\n[delivery]\nmax_age = \"14x\"\n", 3, "is not a duration"),
        ("hostname = \"a.b\"\n[dns]\nservers = [\"x\"]\n", 3, "is not a name server"),
        ("hostname = \"a.b\"\n[[route]]\ndomain = \"*.*\"\nhosts = [\"h\"]\n", 3, "is none of"),
        ("hostname = \"a.b\"\n[[route]]\ndomain = \"*\"\nhosts = []\n", 4, "hosts is empty"),
        ("hostname = \"a.b\"\n[spool]\nsegment_size = 5000\n", 2, "multiple of 4 KiB"),
        ("hostname = \n", 1, ""),
    ] {
        let error = load(text).err().unwrap_or_else(|| panic!("accepted: {text}"));
        let ConfigError::Wrong { line: found, message, .. } = &error else { panic!("{error}") };
        assert_eq!((*found, message.contains(wanted)), (line, true), "{text}\n{error}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
}

#[test]
fn networks_durations_and_sizes() {
    let network: Cidr = "192.0.2.0/24".parse().unwrap();
    assert!(network.contains("192.0.2.255".parse().unwrap()) && !network.contains("192.0.3.0".parse().unwrap()));
    assert!(network.contains("::ffff:192.0.2.1".parse().unwrap()));
    assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("203.0.113.9".parse().unwrap()));
    assert!("2001:db8::/32".parse::<Cidr>().unwrap().contains("2001:db8::5".parse().unwrap()));
    assert!(!"::/0".parse::<Cidr>().unwrap().contains("192.0.2.1".parse().unwrap()));
    assert_eq!(values::parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
    assert_eq!(values::parse_duration("250ms").unwrap(), Duration::from_millis(250));
    assert_eq!(values::parse_bytes("40MiB").unwrap(), 41_943_040);
    for wrong in ["", "5", "h", "5h x", "99999999999999999999s"] {
        assert!(values::parse_duration(wrong).is_err(), "{wrong}");
    }
    assert_eq!(values::parse_host("[2001:db8::1]:2525", 25).unwrap(), ("2001:db8::1".into(), 2525));
    assert_eq!(values::parse_host("MX.Example.net", 25).unwrap(), ("mx.example.net".into(), 25));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nonexistent/mailrail.toml")).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/mailrail.toml: "), "{error}");
}
