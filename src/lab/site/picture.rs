//! A drawing of a site with its addresses, for people.
//!
//! Owns words. Never builds anything.

use super::{Family, Reach, Shape, Site};

impl Site {
    /// A drawing of the site with its addresses.
    pub fn picture(&self, family: Family) -> String {
        let vip = self.vip(family);
        let tag = self.options.vlan.map(|id| format!(" (all frames tagged, VLAN {id})")).unwrap_or_default();
        let mut lines = vec![
            format!("  client     {:<18} asks for {vip}{tag}", self.client_address(family).to_string()),
            String::from("    |"),
        ];
        let between = match (self.options.shape, self.options.reach) {
            (Shape::OneArm, _) => "one Ethernet segment",
            (Shape::TwoArm, Reach::Nat | Reach::FullNat) => "front segment; answers come back by the appliance",
            (Shape::TwoArm, Reach::Mixed) => "front segment; answers come back by the router, or by the appliance",
            (Shape::TwoArm, _) => "front segment; answers come back by the router",
        };
        lines.push(format!("    |   {between}"));
        lines.push(String::from("    |"));
        lines.push(format!("  appliance  {:<18} Evenkeel: takes {vip}", self.appliance_address(family).to_string()));
        lines.push(format!("    |   {}", self.does(family)));
        for server in &self.servers {
            let own = server.address(family).to_string();
            let (part, what) = match server.reach {
                Reach::Direct => ("+--", format!("has {vip} on lo, answers the client itself")),
                Reach::Nat => ("+--", format!("sends everything to its gateway {}", self.gateway(family))),
                Reach::FullNat => ("+--", String::from("answers to the local address that asks it")),
                Reach::Tunnel => ("+-- router --", format!("opens the tunnel, has {vip}, answers the client itself")),
                Reach::Mixed => ("+--", String::new()),
            };
            lines.push(format!("    {part} {:<8} {own:<18} {what}", server.name));
        }
        lines.join("\n")
    }

    fn does(&self, family: Family) -> String {
        match self.options.reach {
            Reach::Direct => "changes Ethernet addresses, nothing else".into(),
            Reach::Nat => {
                format!("changes the destination, and the source of answers; is {} too", self.gateway(family))
            }
            Reach::FullNat => format!("changes both addresses; asks from {} and up", self.local_address(family, 0)),
            Reach::Tunnel => "puts each packet into another one, for the server behind the router".into(),
            Reach::Mixed => "changes Ethernet addresses, or translates, or tunnels: each server has its own way".into(),
        }
    }
}
