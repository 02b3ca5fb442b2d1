# Runs in the guest (see bench/oracle.sh): instructions a packet of several forwarders in one boot. The lines RUN are
# read by the oracle's prof.py. `TOTAL` packets in bursts of 64, `REPS` repeats.
#
# The one processor of the guest counts everything. So that the polling of idle moments does not count, the bare
# forwarder and Evenkeel sleep as soon as they find nothing (--idle-us 0, idle_us = 0): one wake-up for each burst
# counts as theirs. The generator has real-time priority, so a burst arrives whole, as it would from a NIC.
. /t/costlib.sh
SEQ=0; TOTAL=${TOTAL:-6400}; WARM=2000; US=4000; B=64
chmod +x /t/evenkeel /t/forwarder
tc_mac=02:92:00:00:00:02

# start LABEL COMMAND...: in the device's namespace, until `end`
start(){ local label=$1; shift; ip netns exec lb "$@" > /tmp/$label.log 2>&1 & PIDS=$!; sleep 3
 kill -0 $PIDS 2>/dev/null || { echo "FAILED $label:"; cat /tmp/$label.log; PIDS=; return 1; }; }
end(){ kill $PIDS; wait $PIDS 2>/dev/null; PIDS=; sleep 0.5; }

config(){ # POLLING-SETTINGS
 echo '[engine]'; echo 'cores = [0]'; echo 'polling = "adaptive"'; echo 'idle_us = 0'; echo 'huge_pages = "never"'
 echo 'flows = 100_000'; echo 'flows_ipv6 = 1024'
 echo '[control]'; echo 'socket = "/tmp/evenkeel.sock"'
 for i in l0 l1; do echo '[[interface]]'; echo "name = \"$i\""; done
 for n in 2 3; do echo '[[neighbor]]'; echo "address = \"10.92.0.$n\""; echo "mac = \"$tc_mac\""; echo 'interface = "l1"'; done
 echo '[[service]]'; echo 'address = "10.99.0.9"'; echo 'protocol = "udp"'; echo 'port = 9999'; echo "scheduler = \"$1\""
 for n in 2 3; do echo '[[service.server]]'; echo "address = \"10.92.0.$n\""; done; }

ipvs(){ # VIP SCHEDULER
 L ipvsadm -C; ip -n lb addr add $1/32 dev lo 2>/dev/null; DST=$1
 L ipvsadm -A -u $1:9999 -s $2; for a in 2 3; do L ipvsadm -a -u $1:9999 -r 10.92.0.$a:9999 -g; done; }
bare(){ start forwarder_$1 /t/forwarder --in l0 --out l1 --dst 10.99.0.9:9999 --dst-mac $tc_mac --sleep --idle-us 0 --modes $1; }
evenkeel(){ config wlc | sed "s/^polling/mode = \"$1\"\npolling/" > /tmp/evenkeel.toml
 start evenkeel_$1 /t/evenkeel run --config /tmp/evenkeel.toml; }
status(){ L /t/evenkeel status --json --socket /tmp/evenkeel.sock > /out/$1.json; }

# Each case has a base of its own kind (the generator alone), which prof.py subtracts from those that follow.
for rep in ${REPS:-1 2 3}; do
 FLOWS=1000
 DST=10.92.0.2; drop lb l0; M base_existing; undrop lb l0
 M ip_forward
 ipvs 10.99.0.1 wlc; M ipvs_dr_existing; L ipvsadm -C
 DST=10.99.0.9
 for mode in copy generic; do
  bare $mode && { M bare_forwarder_$mode; end; }
  evenkeel $mode && { M evenkeel_dr_${mode}_existing; status existing_$mode; end; }
 done
 # 45000 flows, none of them seen before.
 FLOWS=45000; W=$WARM; WARM=0
 DST=10.92.0.2; drop lb l0; M base_new; undrop lb l0
 ipvs 10.99.1.$((++V)) wlc; M ipvs_dr_new; L ipvsadm -C
 DST=10.99.0.9
 for mode in copy generic; do evenkeel $mode && { M evenkeel_dr_${mode}_new; status new_$mode; end; }; done
 WARM=$W
done
save kallsyms cat /proc/kallsyms
