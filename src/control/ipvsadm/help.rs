//! `ipvsadm -h` and `-v`. Pure.

/// The version of the tool whose habits these are, in its form: scripts look at its number.
pub fn version() -> String {
    format!("ipvsadm v1.31 2019/12/24 (compiled with Evenkeel {} and IPVS v1.2.1)\n", env!("CARGO_PKG_VERSION"))
}

/// What can be asked.
pub fn usage() -> String {
    let body = "\
Usage: what ipvsadm does to the kernel's IPVS, this does to a running Evenkeel.
  ipvsadm -A|-E SERVICE [-s SCHEDULER] [-p [SECONDS]] [-M NETMASK] [-o] [-b FLAGS] [--pe sip]
  ipvsadm -D SERVICE
  ipvsadm -a|-e SERVICE -r ADDRESS[:PORT] [-g|-i|-m] [-w WEIGHT] [-x UPPER] [-y LOWER] [TUNNEL]
  ipvsadm -d SERVICE -r ADDRESS[:PORT]
  ipvsadm -C | -S [-n] | -R
  ipvsadm -L|-l [SERVICE] [-n] [-c | --timeout | --daemon | VIEW] [--exact] [--nosort]
  ipvsadm -Z [SERVICE]
  ipvsadm --set TCP TCPFIN UDP

Commands (each stands first):
  -A --add-service       add a service             -a --add-server      add a real server
  -E --edit-service      change a service          -e --edit-server     change a real server
  -D --delete-service    remove a service          -d --delete-server   remove a real server
  -C --clear             remove all services       -Z --zero            counters start from zero
  -L -l --list           show                      -S --save            print rules for -R
  -R --restore           read rules from stdin     --set                change timeouts, in seconds
  -h --help              this text                 -v --version         the version

SERVICE is one of
  -t --tcp-service  -u --udp-service  --sctp-service    HOST[:PORT] or [IPV6]:PORT
VIEW is one of
  --stats  --rate  --thresholds  --persistent-conn  --tun-info
TUNNEL is
  --tun-type ipip|gue|gre (ipip)  --tun-port PORT (gue)  --tun-nocsum
Options:
  -s --scheduler         rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos; without it wlc
  -p --persistent        seconds for which a client keeps its server; without a number 360
  -M --netmask           clients of one network share a server (IPv6: a number of bits)
  -o --ops               UDP: every datagram by itself
  -b --sched-flags       sh-port, sh-fallback, mh-port, mh-fallback; with commas
  -r --real-server       the real server
  -g --gatewaying, -i --ipip, -m --masquerading    direct routing (without it), tunnel, NAT
  -w --weight            0 to 65535; without it 1
  -x --u-threshold, -y --l-threshold    connections; 0 is none
  -n --numeric           addresses and ports as numbers
  -c --connection        connections
  --exact                all digits of large numbers
  --nosort               in the order of the engine

Not here: firewall marks (-f) and the sync daemon (--start-daemon, --stop-daemon).
The environment variable EVENKEEL_SOCKET names the engine's socket, if it is not /run/evenkeel.sock.
";
    format!("{}{body}", version())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_every_option() {
        let text = usage();
        assert!(text.starts_with("ipvsadm v1.31 "));
        assert!(text.contains(super::super::SOCKET_VARIABLE));
        for long in ["tcp-service", "sched-flags", "l-threshold", "persistent-conn", "tun-type", "restore", "nosort"] {
            assert!(text.contains(&format!("--{long}")), "{long}");
        }
    }
}
