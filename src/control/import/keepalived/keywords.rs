//! Every keyword of keepalived.conf(5): what the import translates, and why the rest has no counterpart.
//!
//! Owns the reasons. Never looks at values. Pure.

use crate::control::config::problem::nearest;

/// Blocks with keywords of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// The file.
    Top,
    /// `global_defs`.
    Global,
    /// `vrrp_instance`.
    Instance,
    /// `vrrp_sync_group`.
    SyncGroup,
    /// `vrrp_script`.
    Script,
    /// `track_file`.
    TrackFile,
    /// `vrrp_track_process`.
    TrackProcess,
    /// `virtual_server`.
    VirtualServer,
    /// `real_server`.
    RealServer,
    /// `TCP_CHECK` and the others.
    Checker,
    /// `url` of `HTTP_GET` and `SSL_GET`.
    Url,
}

/// All contexts.
pub const CONTEXTS: [Context; 11] = [
    Context::Top,
    Context::Global,
    Context::Instance,
    Context::SyncGroup,
    Context::Script,
    Context::TrackFile,
    Context::TrackProcess,
    Context::VirtualServer,
    Context::RealServer,
    Context::Checker,
    Context::Url,
];

impl Context {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Context::Top => "the file itself",
            Context::Global => "global_defs",
            Context::Instance => "vrrp_instance",
            Context::SyncGroup => "vrrp_sync_group",
            Context::Script => "vrrp_script",
            Context::TrackFile => "track_file",
            Context::TrackProcess => "vrrp_track_process",
            Context::VirtualServer => "virtual_server",
            Context::RealServer => "real_server",
            Context::Checker => "a checker",
            Context::Url => "url",
        }
    }

    /// The keywords that are translated.
    pub fn translated(self) -> &'static [&'static str] {
        match self {
            Context::Top => &[
                "global_defs",
                "vrrp_sync_group",
                "vrrp_instance",
                "vrrp_script",
                "vrrp_track_file",
                "track_file",
                "vrrp_track_process",
                "track_process",
                "virtual_server",
                "virtual_server_group",
            ],
            Context::Global => &[
                "vrrp_version",
                "vrrp_garp_master_delay",
                "vrrp_garp_master_repeat",
                "vrrp_garp_master_refresh",
                "vrrp_garp_master_refresh_repeat",
                "vrrp_down_timer_adverts",
                "vrrp_min_garp",
                "vrrp_rt_priority",
                "script_user",
                "vrrp_notify_fifo",
                "notify_fifo",
                "lvs_timeouts",
                "vrrp_strict",
                "vrrp_mcast_group4",
                "vrrp_mcast_group6",
                "default_interface",
                "vrrp_check_unicast_src",
            ],
            Context::Instance => &[
                "state",
                "interface",
                "virtual_router_id",
                "priority",
                "advert_int",
                "version",
                "authentication",
                "virtual_ipaddress",
                "virtual_ipaddress_excluded",
                "mcast_src_ip",
                "unicast_src_ip",
                "unicast_peer",
                "vrrp_unicast_bind",
                "vrrp_unicast_peer",
                "nopreempt",
                "preempt",
                "preempt_delay",
                "down_timer_adverts",
                "garp_master_delay",
                "garp_master_repeat",
                "garp_master_refresh",
                "garp_master_refresh_repeat",
                "use_vmac",
                "accept",
                "no_accept",
                "strict_mode",
                "old_unicast_checksum",
                "v3_checksum_as_v2",
                "track_interface",
                "track_script",
                "track_file",
                "track_process",
                "notify_master",
                "notify_backup",
                "notify_fault",
                "notify_stop",
                "notify",
                "native_ipv6",
                "check_unicast_src",
            ],
            Context::SyncGroup => &[
                "group",
                "track_interface",
                "track_script",
                "track_file",
                "track_process",
                "notify_master",
                "notify_backup",
                "notify_fault",
                "notify_stop",
                "notify",
                "sync_group_tracking_weight",
            ],
            Context::Script => &["script", "interval", "timeout", "rise", "fall", "weight", "user", "init_fail"],
            Context::TrackFile => &["file", "weight"],
            Context::TrackProcess => &["process", "quorum", "delay", "fork_delay", "terminate_delay", "weight"],
            Context::VirtualServer => &[
                "delay_loop",
                "lvs_sched",
                "lb_algo",
                "lvs_method",
                "lb_kind",
                "protocol",
                "persistence_timeout",
                "persistence_granularity",
                "persistence_engine",
                "sh-port",
                "sh-fallback",
                "mh-port",
                "mh-fallback",
                "flag-1",
                "flag-2",
                "ops",
                "quorum",
                "hysteresis",
                "quorum_up",
                "quorum_down",
                "alpha",
                "inhibit_on_failure",
                "virtualhost",
                "connect_timeout",
                "retry",
                "nb_get_retry",
                "delay_before_retry",
                "warmup",
                "sorry_server",
                "sorry_server_lvs_method",
                "real_server",
            ],
            Context::RealServer => &[
                "weight",
                "lvs_method",
                "lb_kind",
                "uthreshold",
                "lthreshold",
                "inhibit_on_failure",
                "notify_up",
                "notify_down",
                "alpha",
                "virtualhost",
                "connect_timeout",
                "retry",
                "nb_get_retry",
                "delay_before_retry",
                "warmup",
                "delay_loop",
                "TCP_CHECK",
                "HTTP_GET",
                "SSL_GET",
                "SMTP_CHECK",
                "DNS_CHECK",
                "MISC_CHECK",
                "UDP_CHECK",
                "PING_CHECK",
                "FILE_CHECK",
            ],
            Context::Checker => &[
                "connect_ip",
                "connect_port",
                "bindto",
                "connect_timeout",
                "retry",
                "nb_get_retry",
                "delay_before_retry",
                "warmup",
                "delay_loop",
                "alpha",
                "url",
                "http_protocol",
                "enable_sni",
                "helo_name",
                "host",
                "type",
                "name",
                "misc_path",
                "misc_timeout",
                "misc_dynamic",
                "user",
                "payload",
                "require_reply",
                "track_file",
                "weight",
                "virtualhost",
            ],
            Context::Url => {
                &["path", "digest", "status_code", "virtualhost", "regex", "regex_no_match", "regex_options"]
            }
        }
    }

    /// The keywords without a counterpart: groups of them, each with its reason.
    fn without(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Context::Top => TOP,
            Context::Global => GLOBAL,
            Context::Instance => INSTANCE,
            Context::SyncGroup => SYNC_GROUP,
            Context::Script => &[],
            Context::TrackFile => {
                &[("init_file", "nothing writes the file: write it before the start, and see `path`")]
            }
            Context::TrackProcess => &[
                ("quorum_max", "there is no highest number of processes"),
                ("full_command param_match", "processes are known by their name in /proc/PID/comm alone"),
            ],
            Context::VirtualServer => VIRTUAL_SERVER,
            Context::RealServer => REAL_SERVER,
            Context::Checker => CHECKER,
            Context::Url => &[
                ("regex_stack", "the regular expressions need no stack"),
                ("regex_min_offset regex_max_offset", "a regular expression looks at the whole answer"),
            ],
        }
    }

    /// Why a keyword of this context has no counterpart.
    pub fn reason(self, keyword: &str) -> Option<&'static str> {
        let known = |(words, _): &&(&str, &str)| words.split(' ').any(|word| word == keyword);
        self.without().iter().find(known).map(|(_, reason)| *reason)
    }

    /// Every keyword of this context.
    pub fn all(self) -> impl Iterator<Item = &'static str> {
        let without = self.without().iter().flat_map(|(words, _)| words.split(' '));
        self.translated().iter().copied().chain(without)
    }

    /// What to say of a word that is no keyword of this context.
    pub fn unknown(self, keyword: &str) -> String {
        if let Some(other) = CONTEXTS.into_iter().find(|other| other.all().any(|known| known == keyword)) {
            let here = self.name();
            return format!("this keyword belongs in {}, and keepalived does not know it in {here}", other.name());
        }
        let near = nearest(keyword, self.all());
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        format!("it is not a keyword of keepalived in {}{near}", self.name())
    }
}

const MAIL: &str = "no mail is sent: a `notify` program can send it";
const SNMP: &str = "there is no SNMP: see `evenkeel status --json`";
const DBUS: &str = "there is no D-Bus: the control socket takes its place";
const NO_CHILDREN: &str = "there are no processes for each part: Evenkeel is one program";
const NETLINK: &str = "the buffers of netlink need no setting";
const ROUTES: &str = "Evenkeel changes no routes and rules of the kernel: have a `notify` program do it";
const STATIC: &str = "it is of the machine, not of a router: put it into the system's network configuration";
const NETFILTER: &str = "the engine answers for its addresses itself: no netfilter rules are needed";
const NAMESPACE: &str = "start Evenkeel in the namespace: `ip netns exec NAME evenkeel run`";
const BFD: &str = "there is no BFD: track a script that asks the BFD daemon, or shorten `interval`";
const SYNC: &str = "flows are not synchronized with the kernel's sync daemon";
const LOWER: &str = "a master that hears a lower priority announces its addresses by itself";

const TOP: &[(&str, &str)] = &[
    ("net_namespace net_namespace_ipvs namespace_with_ipsets", NAMESPACE),
    ("instance use_pid_dir child_wait_time", NO_CHILDREN),
    ("linkbeat_use_polling linkbeat_interfaces", "the kernel tells of carriers; they are not polled"),
    ("interface_up_down_delays", "an interface counts as down at once: raise `down_adverts` on the others"),
    ("static_ipaddress static_addresses static_routes static_rules track_group", STATIC),
    ("garp_group", "announcements are not spread over time by interface"),
    ("bfd_instance", BFD),
    ("SSL", "checks over TLS show no certificate; `tls_ca` of a check has the authorities"),
    ("daemon log_console log_facility debug config_id", "this is an option of the command line"),
];

const GLOBAL: &[(&str, &str)] = &[
    (
        "notification_email notification_email_from smtp_server smtp_helo_name smtp_connect_timeout smtp_alert \
         smtp_alert_vrrp smtp_alert_checker email_faults no_email_faults no_checker_emails",
        MAIL,
    ),
    ("router_id", "only mails and SNMP have it; `name` tells routers apart"),
    ("lvs_id", "only mails and SNMP have it"),
    (
        "snmp_socket enable_snmp_keepalived enable_snmp_vrrp enable_snmp_checker enable_snmp_rfc enable_snmp_rfcv2 \
         enable_snmp_rfcv3 enable_traps",
        SNMP,
    ),
    ("enable_dbus dbus_service_name dbus_no_interface_name", DBUS),
    (
        "process_names process_name vrrp_process_name checker_process_name bfd_process_name vrrp_priority \
         checker_priority bfd_priority vrrp_no_swap checker_no_swap bfd_no_swap vrrp_cpu_affinity \
         checker_cpu_affinity bfd_cpu_affinity checker_rt_priority bfd_rt_priority vrrp_rlimit_rttime \
         checker_rlimit_rttime bfd_rlimit_rttime vrrp_rlimit_rtime checker_rlimit_rtime bfd_rlimit_rtime \
         max_auto_priority min_auto_priority_delay",
        NO_CHILDREN,
    ),
    (
        "vrrp_netlink_cmd_rcv_bufs vrrp_netlink_cmd_rcv_bufs_force vrrp_netlink_monitor_rcv_bufs \
         vrrp_netlink_monitor_rcv_bufs_force lvs_netlink_cmd_rcv_bufs lvs_netlink_cmd_rcv_bufs_force \
         lvs_netlink_monitor_rcv_bufs lvs_netlink_monitor_rcv_bufs_force process_monitor_rcv_bufs \
         process_monitor_rcv_bufs_force vrrp_rx_bufs_policy vrrp_rx_bufs_multiplier",
        NETLINK,
    ),
    (
        "nftables nftables_priority nftables_counters nftables_ifindex nftables_ipvs nftables_ipvs_priority \
         nftables_ipvs_start_fwmark iptables vrrp_iptables vrrp_ipsets disable_local_igmp",
        NETFILTER,
    ),
    ("net_namespace net_namespace_ipvs namespace_with_ipsets instance", NAMESPACE),
    ("lvs_sync_daemon lvs_sync_daemon_interface", SYNC),
    (
        "lvs_flush lvs_flush_on_stop lvs_flush_onstop",
        "nothing of IPVS is touched: `ipvsadm -C` clears what is left of it",
    ),
    ("lvs_notify_fifo lvs_notify_fifo_script", "`evenkeel events --follow` tells of servers and services"),
    ("vrrp_notify_fifo_script notify_fifo_script", "nothing is started to read the FIFO: start the reader yourself"),
    ("fifo_write_vrrp_states_on_reload", "a reload that changes nothing of a router writes nothing"),
    (
        "vrrp_garp_lower_prio_delay vrrp_garp_lower_prio_repeat vrrp_lower_prio_no_advert vrrp_higher_prio_send_advert",
        LOWER,
    ),
    ("vrrp_garp_interval vrrp_gna_interval vrrp_garp_extra_if", "announcements are not spread over time by interface"),
    ("vrrp_skip_check_adv_addr", "each advert is checked whole; that costs nothing"),
    ("vrrp_notify_priority_changes", "changes of priority are in the log, and not in the FIFO"),
    ("vrrp_startup_delay", "there is no delay: start Evenkeel later, such as by systemd"),
    ("enable_script_security script_security", "no shell looks at programs; run them as `script_user`"),
    (
        "startup_script startup_script_timeout shutdown_script shutdown_script_timeout",
        "use `ExecStartPre` and `ExecStopPost` of systemd",
    ),
    ("checker_log_all_failures", "`evenkeel status --checks` shows the last result of each check"),
    ("rs_init_notifies", "programs are run for changes, and not for the state at the start"),
    ("dynamic_interfaces", "an interface of a router may come and go anyway"),
    ("vmac_prefix vmac_addr_prefix", "the virtual MAC needs no interface"),
    (
        "tmp_config_directory config_save_dir reload_check_config reload_time_file reload_repeat reload_file \
         include_check data_use_instance json_version state_dump_file stats_dump_file json_dump_file",
        "the file is read and checked as a whole before anything changes; `evenkeel status --json` tells the state",
    ),
    ("random_seed umask log_unknown_vrids linkbeat_use_polling child_wait_time use_pid_dir", "nothing of it is needed"),
    ("bfd_instance", BFD),
];

const INSTANCE: &[(&str, &str)] = &[
    ("smtp_alert", MAIL),
    ("virtual_routes virtual_rules", ROUTES),
    ("track_bfd", BFD),
    ("lvs_sync_daemon_interface lvs_sync_daemon", SYNC),
    (
        "vmac_xmit_base use_vmac_addr use_ipvlan vrf",
        "there is no interface for the virtual MAC: the engine sends from it",
    ),
    ("dont_track_primary", "a router always tracks its own interface"),
    ("linkbeat_use_polling", "the kernel tells of carriers; they are not polled"),
    ("track_src_ip track_src_addr", "a source address that is gone is a fault only with the interface"),
    ("mcast_dst_ip", "adverts go to the group address of the RFC, or to `peers`"),
    ("unicast_ttl unicast_fault_no_peer", "adverts are sent with TTL 255, and only to `peers` where there are some"),
    ("garp_lower_prio_delay garp_lower_prio_repeat lower_prio_no_advert higher_prio_send_advert", LOWER),
    (
        "garp_extra_if garp_extra_if_vmac garp_intvl_arp garp_interval gna_interval",
        "announcements go out of the router's interface",
    ),
    ("promote_secondaries", "set it on the interface: `sysctl net.ipv4.conf.IF.promote_secondaries=1`"),
    ("skip_check_adv_addr", "each advert is checked whole; that costs nothing"),
    ("debug kernel_rx_buf_size rx_buf_size", "nothing of it is needed"),
    (
        "notify_master_rx_lower_pri notify_deleted notify_priority_changes",
        "there is no program for this change; the log tells of it",
    ),
    ("timer_expired_backup thread_timer_expired", "adverts have a thread of their own"),
];

const SYNC_GROUP: &[(&str, &str)] = &[
    ("smtp_alert", MAIL),
    ("track_bfd", BFD),
    ("global_tracking", "what a router tracks counts for its group anyway"),
    ("notify_deleted notify_priority_changes", "there is no program for this change; the log tells of it"),
];

const VIRTUAL_SERVER: &[(&str, &str)] = &[
    ("smtp_alert", MAIL),
    ("ha_suspend", "checks run on while this machine is backup: states are known when it becomes master"),
    ("omega", "nothing is told when Evenkeel ends: servers are not taken down by that"),
    ("ip_family", "the address says it"),
    ("snmp_name", SNMP),
    ("sorry_server_inhibit", "the sorry server is not checked and takes flows while the quorum is lost alone"),
    ("flag-3 hashed", "no scheduler has this flag"),
    ("nat_mask", "NAT translates addresses one by one"),
    ("log_all_failures", "`evenkeel status --checks` shows the last result of each check"),
];

const REAL_SERVER: &[(&str, &str)] = &[
    ("smtp_alert", MAIL),
    ("snmp_name", SNMP),
    ("BFD_CHECK", BFD),
    ("log_all_failures", "`evenkeel status --checks` shows the last result of each check"),
];

const CHECKER: &[(&str, &str)] = &[
    ("bind_if", "the route of `source` says the interface"),
    ("bind_port", "the kernel chooses the source port of a check"),
    ("fwmark", "packets of checks have no mark"),
    ("log_all_failures", "`evenkeel status --checks` shows the last result of each check"),
    ("fast_recovery", "all requests are made in each run anyway"),
    ("min_reply_length max_reply_length", "the length of a reply is not looked at"),
    ("dynamic", "the number in the file always changes the weight"),
    ("smtp_alert", MAIL),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_keyword_is_there_once_with_a_reason_or_a_translation() {
        for context in CONTEXTS {
            let mut all: Vec<&str> = context.all().collect();
            assert!(all.iter().all(|word| !word.is_empty()), "{context:?} has two blanks in a row");
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "{context:?} has a keyword twice");
            for word in context.translated() {
                assert_eq!(context.reason(word), None, "{word}");
            }
        }
    }

    #[test]
    fn strangers_are_told_apart_from_slips_and_from_words_in_the_wrong_place() {
        let unknown = Context::Instance.unknown("virtual_ipadress");
        assert_eq!(unknown, "it is not a keyword of keepalived in vrrp_instance; did you mean `virtual_ipaddress`?");
        assert!(Context::Global.unknown("advert_int").starts_with("this keyword belongs in vrrp_instance"));
        assert!(Context::Top.unknown("qwertz").ends_with("in the file itself"));
    }
}
