//! The text of a configuration as a tree that keeps comments, order and spelling, and what an edit does to it.
//!
//! Owns finding services and servers in the tree, and where something new stands. Never judges a value: the text is read
//! as the file would be, afterwards. Pure.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value as Json};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::{Edit, EditError};
use crate::control::config::problem::nearest;
use crate::control::config::raw::default_value;
use crate::control::config::schema::{self, FILE, Presence};
use crate::control::config::value;
use crate::control::naming::{self, cut};
use crate::control::resolve::default_name;
use crate::control::socket::Code;
use crate::model::{Protocol, ServiceKey};

/// A server as it is written.
type End = (IpAddr, Option<u16>);

/// What tells a service of the text from the others; `None` where what is written makes no sense yet.
#[derive(Clone, Debug, Default)]
struct Known {
    name: String,
    key: Option<ServiceKey>,
    servers: Vec<Option<End>>,
}

/// A configuration's text.
#[derive(Clone, Debug)]
pub struct Document {
    tree: DocumentMut,
    /// In the order of the text.
    services: Vec<Known>,
}

impl Document {
    /// Reads a text that is sound TOML.
    ///
    /// # Errors
    /// Why it is not.
    pub fn read(text: &str) -> Result<Document, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let tree: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
        let mut document = Document { tree, services: Vec::new() };
        let root = document.tree.as_table();
        let count = root.get("service").map_or(0, length);
        document.services = (0..count).map(|at| known(element(root.get("service"), at))).collect();
        Ok(document)
    }

    /// The text.
    pub fn text(&self) -> String {
        self.tree.to_string()
    }

    /// Makes a change.
    ///
    /// # Errors
    /// [`EditError`]; the document may have changed in part and is of no more use.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), EditError> {
        match edit {
            Edit::AddService { keys } => self.add_service(keys),
            Edit::EditService { service, keys } => {
                let at = self.service(service)?;
                self.edit_service(at, keys)
            }
            Edit::RemoveService { service } => {
                let at = self.service(service)?;
                self.remove_service(at);
                Ok(())
            }
            Edit::RemoveServices {} => {
                while !self.services.is_empty() {
                    self.remove_service(self.services.len() - 1);
                }
                Ok(())
            }
            Edit::AddServer { service, keys } => {
                let at = self.service(service)?;
                self.add_server(at, keys)
            }
            Edit::EditServer { service, server, keys } => {
                for (at, number) in self.servers(service.as_deref(), server)? {
                    self.edit_server(at, number, keys)?;
                }
                Ok(())
            }
            Edit::RemoveServer { service, server } => {
                for (at, number) in self.servers(service.as_deref(), server)? {
                    let (service, _) = self.service_table(at)?;
                    if let Some(list) = service.get_mut("server") {
                        remove(list, number);
                    }
                    if service.get("server").is_some_and(|list| length(list) == 0) {
                        service.remove("server");
                    }
                    self.services[at].servers.remove(number);
                }
                Ok(())
            }
            Edit::EditTable { table, keys } => self.edit_table(table, keys),
        }
    }

    fn add_service(&mut self, keys: &Map<String, Json>) -> Result<(), EditError> {
        let mut table = Table::new();
        merge(&mut table, true, keys, "service")?;
        let new = known(Some(&table));
        if let Some(key) = new.key
            && let Some(there) = self.services.iter().find(|known| known.key == Some(key))
        {
            let text = format!("there is a service {key} already: `{}`", there.name);
            return Err(EditError::new(Code::ServiceExists, text));
        }
        if self.services.iter().any(|known| !new.name.is_empty() && known.name == new.name) {
            let text = format!("there is a service `{}` already", cut(&new.name));
            return Err(EditError::new(Code::ServiceExists, text));
        }
        twice(&new.servers)?;
        push(self.tree.as_table_mut(), true, "service", table);
        self.services.push(new);
        Ok(())
    }

    fn edit_service(&mut self, at: usize, keys: &Map<String, Json>) -> Result<(), EditError> {
        let (table, block) = self.service_table(at)?;
        merge(table, block, keys, "service")?;
        let new = known(Some(&*table));
        let others = || self.services.iter().enumerate().filter(|(number, _)| *number != at).map(|(_, known)| known);
        if let Some(there) = others().find(|other| new.key.is_some() && other.key == new.key) {
            let text = format!("this is what the service `{}` has already", cut(&there.name));
            return Err(EditError::new(Code::ServiceExists, text));
        }
        if others().any(|other| other.name == new.name) {
            let text = format!("there is a service `{}` already", cut(&new.name));
            return Err(EditError::new(Code::ServiceExists, text));
        }
        self.services[at] = new;
        Ok(())
    }

    fn remove_service(&mut self, at: usize) {
        let root = self.tree.as_table_mut();
        let table = root.get("service").and_then(Item::as_array_of_tables).and_then(|tables| tables.get(at));
        let heading = table.and_then(heading);
        if let Some(list) = root.get_mut("service") {
            remove(list, at);
        }
        if root.get("service").is_some_and(|list| length(list) == 0) {
            root.remove("service");
        }
        self.services.remove(at);
        if let Some(heading) = heading {
            self.keep(at, &heading);
        }
    }

    /// Comments that stood before a table that went, and were not about it alone.
    fn keep(&mut self, at: usize, heading: &str) {
        let next = self.tree.as_table_mut().get_mut("service").and_then(|list| table_of(list, at));
        if let Some(next) = next {
            let prefix = next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().to_owned();
            next.decor_mut().set_prefix(format!("{heading}{prefix}"));
        } else {
            let trailing = self.tree.trailing().as_str().unwrap_or_default().to_owned();
            self.tree.set_trailing(format!("{heading}{trailing}"));
        }
    }

    fn add_server(&mut self, at: usize, keys: &Map<String, Json>) -> Result<(), EditError> {
        let mut server = Table::new();
        merge(&mut server, true, keys, "server")?;
        let new = end(&server);
        let (name, port) = (self.services[at].name.clone(), self.port(at));
        let same = |known: &Option<End>| match (known, new) {
            (Some(known), Some(new)) => (known.0, known.1.or(port)) == (new.0, new.1.or(port)),
            _ => false,
        };
        if self.services[at].servers.iter().any(same) {
            let text = format!("the service `{}` has the server {} already", cut(&name), written(new, port));
            return Err(EditError::new(Code::ServerExists, text));
        }
        let (service, block) = self.service_table(at)?;
        push(service, block, "server", server);
        self.services[at].servers.push(new);
        Ok(())
    }

    fn edit_server(&mut self, at: usize, number: usize, keys: &Map<String, Json>) -> Result<(), EditError> {
        let (service, _) = self.service_table(at)?;
        let list = service.get_mut("server");
        let block = list.as_ref().is_some_and(|list| list.is_array_of_tables());
        let server = list.and_then(|list| element_mut(list, number));
        let server = server.ok_or_else(|| EditError::new(Code::Invalid, "this server is written as no table"))?;
        merge(server, block, keys, "server")?;
        let new = end(server);
        self.services[at].servers[number] = new;
        twice(&self.services[at].servers)
    }

    fn edit_table(&mut self, name: &str, keys: &Map<String, Json>) -> Result<(), EditError> {
        let once = || FILE.tables.iter().filter(|table| table.is_alone()).map(|table| table.name);
        if !once().any(|known| known == name) {
            let near = nearest(name, once()).map(|word| format!("did you mean `{word}`? ")).unwrap_or_default();
            let all = once().collect::<Vec<_>>().join(", ");
            let text = format!("`table` is {:?}; {near}it is one of {all}", cut(name));
            return Err(EditError::new(Code::Invalid, text));
        }
        let root = self.tree.as_table_mut();
        if root.get(name).is_none() {
            let mut table = Table::new();
            table.decor_mut().set_prefix(if root.is_empty() { "" } else { "\n" });
            root.insert(name, Item::Table(table));
        }
        let block = root.get(name).is_some_and(Item::is_table);
        let table = root.get_mut(name).and_then(Item::as_table_like_mut);
        merge(table.ok_or_else(|| EditError::new(Code::Invalid, format!("`{name}` is no table")))?, block, keys, name)
    }

    /// The number of the service that is meant.
    fn service(&self, meant: &str) -> Result<usize, EditError> {
        let named = self.services.iter().position(|known| known.name == meant);
        let by_key = || {
            let is = |known: &Known| known.key.is_some_and(|key| naming::is_key(&key, meant));
            self.services.iter().position(is)
        };
        named.or_else(by_key).ok_or_else(|| {
            let names = self.services.iter().map(|known| known.name.as_str());
            let near = nearest(meant, names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            EditError::new(Code::NoService, format!("there is no service `{}`{near}", cut(meant)))
        })
    }

    fn port(&self, service: usize) -> Option<u16> {
        self.services[service].key.and_then(|key| key.ports.as_single())
    }

    /// The numbers of the servers that are meant, each after that of its service; later ones of a service first.
    fn servers(&self, service: Option<&str>, meant: &str) -> Result<Vec<(usize, usize)>, EditError> {
        let Some((address, port)) = naming::end(meant) else {
            let text = format!(
                "`server` is {:?}; expected an address, or an address and a port such as 10.0.0.11:80 or [fd00::11]:80",
                cut(meant)
            );
            return Err(EditError::new(Code::Invalid, text));
        };
        let services = match service {
            Some(name) => vec![self.service(name)?],
            None => (0..self.services.len()).collect(),
        };
        let mut found = Vec::new();
        for at in services {
            let of_service = self.port(at);
            let is = |known: &Option<End>| {
                known.is_some_and(|(known, own)| known == address && (port.is_none() || own.or(of_service) == port))
            };
            let servers = self.services[at].servers.iter().enumerate().rev();
            let all: Vec<usize> = servers.filter(|(_, known)| is(known)).map(|(number, _)| number).collect();
            if all.len() > 1 {
                let name = cut(&self.services[at].name);
                let text = format!("the service `{name}` has {address} on {} ports; say which", all.len());
                return Err(EditError::new(Code::Invalid, text));
            }
            found.extend(all.into_iter().map(|number| (at, number)));
        }
        if found.is_empty() {
            let place = service.map_or("any service".to_owned(), |name| format!("the service `{}`", cut(name)));
            return Err(EditError::new(Code::NoServer, format!("there is no server {} in {place}", cut(meant))));
        }
        Ok(found)
    }

    /// A service, and whether it is a block of lines of its own.
    fn service_table(&mut self, at: usize) -> Result<(&mut dyn TableLike, bool), EditError> {
        let list = self.tree.as_table_mut().get_mut("service");
        let block = list.as_ref().is_some_and(|list| list.is_array_of_tables());
        list.and_then(|list| element_mut(list, at))
            .map(|table| (table, block))
            .ok_or_else(|| EditError::new(Code::Invalid, "this service is written as no table"))
    }
}

fn written(end: Option<End>, port: Option<u16>) -> String {
    match end {
        Some((address, own)) => match own.or(port) {
            Some(port) => SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        },
        None => String::new(),
    }
}

/// Two servers of a service cannot be the same.
fn twice(servers: &[Option<End>]) -> Result<(), EditError> {
    let mut all: Vec<&End> = servers.iter().flatten().collect();
    all.sort_unstable();
    match all.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            let text = format!("the server {} would be there twice", written(Some(*pair[0]), None));
            Err(EditError::new(Code::ServerExists, text))
        }
        None => Ok(()),
    }
}

/// A value under a key of a schema, where it is written and sound, or has a default.
fn value_of(schema: &'static schema::Table, table: &dyn TableLike, key: &str) -> Option<value::Value> {
    let key = schema.key(key)?;
    match (table.get(key.name), &key.presence) {
        (Some(item), _) => default_value(key, item.as_value()?.to_string().trim()),
        (None, Presence::Default(text)) => default_value(key, text),
        (None, _) => None,
    }
}

fn known(table: Option<&dyn TableLike>) -> Known {
    let (Some(table), Some(schema)) = (table, FILE.table("service")) else { return Known::default() };
    let address = match value_of(schema, table, "address") {
        Some(value::Value::Address(address)) => Some(address),
        _ => None,
    };
    let protocol = match value_of(schema, table, "protocol") {
        Some(value::Value::Word("udp")) => Protocol::Udp,
        Some(value::Value::Word("sctp")) => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let ports = match value_of(schema, table, "port") {
        Some(value::Value::Ports(ports)) => Some(ports),
        _ => None,
    };
    let key = address.zip(ports).map(|(address, ports)| ServiceKey { address, protocol, ports });
    let name = table.get("name").and_then(Item::as_str).map(str::to_owned);
    let name = name.or_else(|| key.map(|key| default_name(&key))).unwrap_or_default();
    let servers = table.get("server");
    let count = servers.map_or(0, length);
    Known { name, key, servers: (0..count).map(|at| element(servers, at).and_then(end)).collect() }
}

fn end(server: &dyn TableLike) -> Option<End> {
    let schema = FILE.table("service")?.table("server")?;
    let address = match value_of(schema, server, "address") {
        Some(value::Value::Address(address)) => address,
        _ => return None,
    };
    let port = server.get("port").and_then(Item::as_integer).and_then(|port| u16::try_from(port).ok());
    Some((address, port))
}

/// Elements of a list of tables, in whichever form it is written.
fn length(list: &Item) -> usize {
    match list {
        Item::ArrayOfTables(tables) => tables.len(),
        Item::Value(Value::Array(array)) => array.len(),
        _ => 0,
    }
}

fn element(list: Option<&Item>, at: usize) -> Option<&dyn TableLike> {
    match list? {
        Item::ArrayOfTables(tables) => tables.get(at).map(|table| table as &dyn TableLike),
        Item::Value(Value::Array(array)) => array.get(at)?.as_inline_table().map(|table| table as &dyn TableLike),
        _ => None,
    }
}

fn element_mut(list: &mut Item, at: usize) -> Option<&mut dyn TableLike> {
    match list {
        Item::ArrayOfTables(tables) => tables.get_mut(at).map(|table| table as &mut dyn TableLike),
        Item::Value(Value::Array(array)) => {
            array.get_mut(at)?.as_inline_table_mut().map(|table| table as &mut dyn TableLike)
        }
        _ => None,
    }
}

fn table_of(list: &mut Item, at: usize) -> Option<&mut Table> {
    list.as_array_of_tables_mut()?.get_mut(at)
}

fn remove(list: &mut Item, at: usize) {
    match list {
        Item::ArrayOfTables(tables) => {
            tables.remove(at);
        }
        Item::Value(Value::Array(array)) => {
            array.remove(at);
        }
        _ => {}
    }
}

/// Puts a table at the end of a list, in the form that the list has, or what it is in (`block`).
fn push(within: &mut dyn TableLike, block: bool, name: &str, mut table: Table) {
    let inline = match within.get(name) {
        Some(Item::ArrayOfTables(_)) => false,
        Some(_) => true,
        None => !block,
    };
    if inline {
        let list = within.entry(name).or_insert_with(|| Item::Value(Value::Array(Array::new())));
        if let Some(array) = list.as_array_mut() {
            let mut new = Value::InlineTable(table.into_inline_table());
            // As its neighbour stands: on the same line, or on one of its own.
            if let Some(last) = array.iter_mut().last() {
                *new.decor_mut() = last.decor().clone();
                last.decor_mut().set_suffix("");
            }
            array.push_formatted(new);
        }
        return;
    }
    let first = within.is_empty();
    let list = within.entry(name).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if let Some(tables) = list.as_array_of_tables_mut() {
        table.decor_mut().set_prefix(if first && tables.is_empty() { "" } else { "\n" });
        tables.push(table);
    }
}

/// Comments before a table, up to the last empty line among them: those are not about the table alone.
fn heading(table: &Table) -> Option<String> {
    let prefix = table.decor().prefix()?.as_str()?;
    let end = prefix.rfind("\n\n").map(|at| at + 1)?;
    let heading = prefix.get(..end)?;
    heading.contains('#').then(|| heading.to_owned())
}

/// Puts keys into a table, or takes them away. `block`: the table is one of lines of its own.
fn merge(table: &mut dyn TableLike, block: bool, keys: &Map<String, Json>, what: &str) -> Result<(), EditError> {
    let service = FILE.table("service");
    let schema = if what == "server" { service.and_then(|service| service.table("server")) } else { service };
    let place = |key: &str| schema.and_then(|schema| schema.keys.iter().position(|known| known.name == key));
    let mut keys: Vec<_> = keys.iter().collect();
    // As in the reference; what is not in it, last.
    keys.sort_by_key(|(key, _)| place(key).unwrap_or(usize::MAX));
    for (key, value) in keys {
        match value {
            Json::Null => {
                table.remove(key);
            }
            Json::Object(inner) if table.get(key).is_some_and(Item::is_table_like) => {
                let block = table.get(key).is_some_and(Item::is_table);
                if let Some(there) = table.get_mut(key).and_then(Item::as_table_like_mut) {
                    merge(there, block, inner, key)?;
                }
            }
            other => {
                let new = item(other, block, what, key)?;
                match table.get_mut(key) {
                    // What stands beside a value, such as a comment, stays.
                    Some(Item::Value(old)) if new.is_value() => {
                        let decor = old.decor().clone();
                        if let Item::Value(mut value) = new {
                            *value.decor_mut() = decor;
                            *old = value;
                        }
                    }
                    Some(old) => *old = new,
                    None => {
                        table.insert(key, new);
                    }
                }
            }
        }
    }
    Ok(())
}

fn item(json: &Json, block: bool, what: &str, key: &str) -> Result<Item, EditError> {
    match json {
        Json::Object(keys) if block => {
            let mut table = Table::new();
            table.decor_mut().set_prefix("\n");
            merge(&mut table, true, keys, key)?;
            Ok(Item::Table(table))
        }
        Json::Array(list) if block && !list.is_empty() && list.iter().all(Json::is_object) => {
            let mut tables = ArrayOfTables::new();
            for element in list {
                if let Item::Table(table) = item(element, true, what, key)? {
                    tables.push(table);
                }
            }
            Ok(Item::ArrayOfTables(tables))
        }
        other => Ok(Item::Value(plain(other, what, key)?)),
    }
}

fn plain(json: &Json, what: &str, key: &str) -> Result<Value, EditError> {
    let wrong = |why: &str| {
        EditError::new(Code::Invalid, format!("{what}: `{}` is {why}, which no configuration can have", cut(key)))
    };
    Ok(match json {
        Json::Null => return Err(wrong("null inside a list")),
        Json::Bool(yes) => (*yes).into(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => integer.into(),
            (None, Some(float)) if !number.is_u64() => float.into(),
            _ => return Err(wrong("too large a number")),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(list) => {
            let mut array = Array::new();
            for element in list {
                array.push(plain(element, what, key)?);
            }
            array.into()
        }
        Json::Object(keys) => {
            let mut table = InlineTable::new();
            merge(&mut table, false, keys, key)?;
            table.into()
        }
    })
}

#[cfg(test)]
mod tests;
