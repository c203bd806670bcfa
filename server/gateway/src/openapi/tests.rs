//! Documents as public APIs have them, and documents that somebody wrote to get more than their own paths.

use serde_json::json;

use super::*;
use crate::api::Api;

/// A document with these paths, and what else there is.
fn document(paths: Value, more: Value) -> Vec<u8> {
    let servers = json!([{"url": "https://api.example/v1"}]);
    let info = json!({"title": "Saas", "version": "1"});
    let mut whole = json!({"openapi": "3.1.0", "info": info, "servers": servers});
    let all = whole.as_object_mut().unwrap();
    all.insert("paths".to_owned(), paths);
    let Value::Object(more) = more else { panic!("{more}") };
    all.extend(more);
    serde_json::to_vec(&whole).unwrap()
}

/// The file, and what TOML reads in it. A file that could not be served fails here.
fn file(document: &[u8], wishes: &RuleWishes) -> (String, ::toml::Table) {
    let text = rules(document, wishes).unwrap();
    assert!(text.is_ascii(), "{text}");
    let api: Api = ::toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    api.check().unwrap_or_else(|why| panic!("{why}\n{text}"));
    let table = ::toml::from_str(&text).unwrap();
    (text, table)
}

fn json_of(table: &::toml::Table, key: &str) -> Value {
    serde_json::to_value(&table[key]).unwrap()
}

fn routes(table: &::toml::Table) -> Vec<Value> {
    json_of(table, "route").as_array().unwrap().clone()
}

fn paths(table: &::toml::Table) -> Vec<String> {
    routes(table).iter().map(|route| route["path"].as_str().unwrap().to_owned()).collect()
}

fn refused(document: &[u8]) -> String {
    rules(document, &RuleWishes::default()).unwrap_err()
}

const ISSUES: &str = r##"
openapi: 3.0.3
info: {title: Issues of repositories, version: 1.1.4}
servers:
  - url: https://{host}/api/v3
    variables: {host: {default: api.example, enum: [api.example, eu.example]}}
  - url: http://api.example/api/v3
security: [{token: []}]
paths:
  /repos/{owner}/{repo}/issues:
    parameters:
      - $ref: '#/components/parameters/owner'
      - {name: repo, in: path, required: true, schema: {type: string}}
      - {name: state, in: query, schema: {type: string}}
    get:
      tags: [Issues & more]
      operationId: issues/list-for-repo
      parameters:
        - {name: per_page, in: query, schema: {type: integer}}
        - {name: X-Api-Version, in: header, schema: {type: string}}
        - {name: If-None-Match, in: header, schema: {type: string}}
        - {name: session, in: cookie, schema: {type: string}}
      responses: {'200': {description: OK}}
    post:
      tags: [Issues & more]
      requestBody:
        content:
          application/json: {schema: {$ref: '#/components/schemas/issue'}}
          multipart/form-data: {}
      responses: {'201': {description: Created}}
  /repos/{owner}/{repo}/tarball/{ref}.zip:
    get: {responses: {}}
  /uploads/{name}:
    put:
      requestBody: {content: {application/octet-stream: {schema: {type: string, format: binary}}}}
      responses: {}
  /uploads/all:
    delete: {responses: {}}
    trace: {responses: {}}
    post:
      servers: [{url: 'https://uploads.example'}]
      responses: {}
  /labels:
    post:
      requestBody: {content: {application/json: {schema: {type: array, items: {type: string}}}}}
      security: []
      responses: {}
  /login:
    post:
      security: [{password: []}]
      responses: {}
components:
  parameters: {owner: {name: owner, in: path, required: true, schema: {type: string}}}
  schemas: {issue: {type: object, properties: {title: {type: string}}}}
  securitySchemes:
    password: {type: http, scheme: basic}
    token: {type: http, scheme: bearer}
"##;

#[test]
fn a_document_in_yaml_becomes_a_file() {
    let wishes = RuleWishes { prefix: Some("saas".to_owned()), ..RuleWishes::default() };
    let (text, table) = file(ISSUES.as_bytes(), &wishes);
    assert_eq!(table["upstream"].as_str(), Some("https://api.example"));
    assert_eq!(json_of(&table, "credential"), json!({"put": "bearer"}));
    assert_eq!(json_of(&table, "headers"), json!(["x-api-version"]));
    let route = |method: &str, path: &str, tool: &str, action: &str, body: &str| {
        let (tool, resource, path) = (format!("saas_{tool}"), &path[1..], format!("/api/v3{path}"));
        json!({"method": method, "path": path, "tool": tool, "action": action, "resource": resource, "body": body})
    };
    let issues = "/repos/{owner}/{repo}/issues";
    let mut reading = route("GET", issues, "issues_more", "read", "none");
    reading["query"] = json!(["per_page", "state"]);
    let mut writing = route("POST", issues, "issues_more", "write", "json");
    writing["query"] = json!(["state"]);
    let expected = [
        route("POST", "/labels", "labels", "write", "stream"),
        reading,
        writing,
        route("DELETE", "/uploads/all", "uploads", "write", "none"),
        route("PUT", "/uploads/{name}", "uploads", "write", "stream"),
    ];
    assert_eq!(routes(&table), expected);
    for told in [
        "the server http://api.example/api/v3: it is no address with https",
        "other servers than https://api.example/api/v3",
        "GET /repos/{owner}/{repo}/tarball/{ref}.zip: a segment is text or one parameter",
        "TRACE /uploads/all: no gateway passes it",
        "POST /uploads/all: it is at another server",
        "POST /login: it takes another credential",
        "GET /repos/{owner}/{repo}/issues: the parameter session: cookies",
        "POST /repos/{owner}/{repo}/issues: a body that is multipart/form-data",
    ] {
        assert!(text.contains(&format!("\n# - {told}")), "{told}\n{text}");
    }
    assert!(!text.contains("if-none-match"), "that one is always passed on");
    let wider = "\n# On every route, also where the document does not name it: x-api-version\nheaders = ";
    assert!(text.contains(wider), "{text}");
    // Control: one that every operation has is no wider there.
    let get = json!({"get": {"parameters": [{"name": "X-Api-Version", "in": "header"}], "responses": {}}});
    let (text, table) = file(&document(json!({"/a": get, "/b": get}), json!({})), &RuleWishes::default());
    assert_eq!(json_of(&table, "headers"), json!(["x-api-version"]));
    assert!(!text.contains("On every route"), "{text}");
}

/// A document whose one operation asks for one of many schemes.
fn secured(name: &str) -> Vec<u8> {
    let client = |url: &str| json!({"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": url, "scopes": {}}}});
    let schemes = json!({
        "basic": {"type": "http", "scheme": "Basic"},
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-KEY"},
        "query": {"type": "apiKey", "in": "query", "name": "api_key"},
        "oauth": client("https://login.example/token"),
        "openid": {"type": "openIdConnect", "openIdConnectUrl": "https://login.example/x"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "s"},
        "digest": {"type": "http", "scheme": "digest"},
        "tls": {"type": "mutualTLS"},
        "host": {"type": "apiKey", "in": "header", "name": "Host"},
        "insecure": client("http://login.example/token")
    });
    let parameters = json!([
        {"name": "api_key", "in": "query"}, {"name": "X-Api-Key", "in": "header"}, {"name": "q", "in": "query"}
    ]);
    let security = match name {
        "both" => json!([{"bearer": [], "header": []}]),
        name => json!([{name: ["read", "write"]}]),
    };
    let operation = json!({"responses": {}, "security": security, "parameters": parameters});
    document(json!({"/a": {"get": operation}}), json!({"components": {"securitySchemes": schemes}}))
}

#[test]
fn a_credential_is_put_where_the_schemes_say() {
    let (plain, client) =
        (RuleWishes::default(), RuleWishes { client_id: Some("me".to_owned()), ..RuleWishes::default() });
    let by_client = json!({
        "put": "oauth-client", "token_url": "https://login.example/token", "client_id": "me", "scope": "read write"
    });
    for (name, wishes, credential) in [
        ("basic", &plain, json!({"put": "basic"})),
        ("bearer", &plain, json!({"put": "bearer"})),
        ("header", &plain, json!({"put": "header", "name": "x-api-key"})),
        ("query", &plain, json!({"put": "query", "name": "api_key"})),
        ("oauth", &plain, json!({"put": "bearer"})),
        ("openid", &plain, json!({"put": "bearer"})),
        ("oauth", &client, by_client),
    ] {
        let (text, table) = file(&secured(name), wishes);
        assert_eq!(json_of(&table, "credential"), credential, "{name}");
        let expected = if name == "query" { json!(["q"]) } else { json!(["api_key", "q"]) };
        assert_eq!(routes(&table)[0]["query"], expected, "an agent does not say the credential: {text}");
        assert!(!table.contains_key("headers"), "x-api-key is nobody's to send: {text}");
    }
}

#[test]
fn what_cannot_be_put_on_is_no_credential() {
    for name in ["cookie", "digest", "tls", "host", "both"] {
        let why = refused(&secured(name));
        assert!(why.starts_with("nothing in it can be a route: "), "{name}: {why}");
    }
    let client = RuleWishes { client_id: Some("me".to_owned()), ..RuleWishes::default() };
    assert!(rules(&secured("insecure"), &client).is_err());
    let only = json!({"/a": {"get": {"security": [{"x": []}], "responses": {}}}});
    let schemes = json!({"components": {"securitySchemes": {"x": {"type": "mutualTLS"}}}});
    let why = refused(&document(only, schemes));
    assert!(why.contains("none of its security schemes"), "{why}");
    let other = RuleWishes { scheme: Some("other".to_owned()), ..RuleWishes::default() };
    assert!(rules(&secured("basic"), &other).unwrap_err().contains("no security scheme \"other\""));
    let open = document(json!({"/a": {"get": {"responses": {}}}}), json!({}));
    let (text, _) = file(&open, &RuleWishes::default());
    assert!(text.contains("# - a credential: the document names none"), "{text}");
}

#[test]
fn nothing_in_a_document_gets_out_of_its_text() {
    let odd = "a\"\n[[route]]\nmethod = \"DELETE\"\npath = \"/**\"\ntool = \"x\"\n#";
    let parameters = json!([
        {"name": odd, "in": "query"}, {"name": "*", "in": "query"}, {"name": "a\"]\\b", "in": "query"},
        {"name": "X-\nY", "in": "header"}, {"name": odd, "in": "cookie"}
    ]);
    let operation = json!({
        "tags": [odd], "operationId": odd, "parameters": parameters, "responses": {},
        "requestBody": {"content": {"application/json": {}, odd: {}}}, "security": [{odd: [odd]}]
    });
    let mut all = json!({"/good/{id\"\n}": {"post": operation}});
    let slashed = format!("/{odd}");
    for path in [
        slashed.as_str(),
        "/a\n[x]",
        "/..",
        "/a/../b",
        "/%2e%2e/a",
        "/**",
        "/{*rest}x",
        "/a\"b",
        "/a\\b",
        "//evil.example/a",
    ] {
        all[path] = json!({"get": {"tags": [odd], "responses": {}}});
    }
    let more = json!({
        "info": {"title": odd, "version": odd},
        "servers": [
            {"url": format!("https://x.example/{odd}")}, {"url": "https://me@api.example"},
            {"url": "https://api.example/../x"}, {"url": "https://api.example/v1"}
        ],
        "components": {"securitySchemes": {odd: {"type": "apiKey", "in": "query", "name": "k\"y"}}}
    });
    let wishes = RuleWishes { actions: Actions::Operation, ..RuleWishes::default() };
    let (text, table) = file(&document(all, more), &wishes);
    let keys: Vec<_> = table.keys().map(String::as_str).collect();
    assert_eq!(keys, ["credential", "route", "upstream"], "{text}");
    assert_eq!(table["upstream"].as_str(), Some("https://api.example"));
    assert_eq!(json_of(&table, "credential"), json!({"put": "query", "name": "k\"y"}));
    let expected = json!({
        "method": "POST", "path": "/v1/good/{id__}", "tool": "a_route_method_delete_path_tool_x", "action": "write",
        "resource": "good/{id__}", "query": ["a\"]\\b"], "body": "json"
    });
    assert_eq!(routes(&table), [expected], "{text}");
    let is_comment = |line: &str| line.starts_with("# ");
    assert!(text.lines().filter(|line| line.contains("DELETE")).all(is_comment), "{text}");
}

#[test]
fn references_stay_in_the_document_and_end() {
    let all = json!({
        "/a": {"$ref": "#/components/pathItems/a~1b%20c"},
        "/out": {"$ref": "https://evil.example/paths.json#/x"},
        "/file": {"$ref": "other.yaml"},
        "/none": {"$ref": "#/components/pathItems/none"},
        "/round": {"$ref": "#/components/pathItems/one"},
        "/self": {"$ref": "#/paths/~1self"},
        "/parameters": {"get": {"responses": {}, "parameters": [
            {"$ref": "#/components/parameters/loop"}, {"$ref": "/etc/passwd"},
            {"name": "q", "in": "query", "schema": {"$ref": "#/components/schemas/tree"}}
        ]}}
    });
    let items = json!({
        "a/b c": {"get": {"responses": {}}}, "one": {"$ref": "#/components/pathItems/two"},
        "two": {"$ref": "#/components/pathItems/one"}
    });
    let components = json!({
        "pathItems": items,
        "parameters": {"loop": {"$ref": "#/components/parameters/loop"}},
        "schemas": {"tree": {"allOf": [{"$ref": "#/components/schemas/tree"}]}}
    });
    let (text, table) = file(&document(all, json!({"components": components})), &RuleWishes::default());
    assert_eq!(paths(&table), ["/v1/a", "/v1/parameters"], "{text}");
    assert_eq!(routes(&table)[1]["query"], json!(["q"]));
    for told in [
        "/out: a reference leads out",
        "/file: a reference leads out",
        "/none: a reference leads to nothing",
        "/round: references lead on and on",
        "/self: references lead on and on",
        "GET /parameters: a parameter: references lead on",
        "GET /parameters: a parameter: a reference leads out",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
}

#[test]
fn members_of_an_object_are_parameters_one_by_one() {
    let object = json!({"type": "object", "properties": {"gt": {}, "lt": {}}});
    let closed =
        json!({"type": "object", "properties": {"from": {}, "*": {}}, "additionalProperties": false});
    let deep = |name: &str, schema: Value| json!({"name": name, "in": "query", "style": "deepObject", "explode": true, "schema": schema});
    let parameters = json!([
        deep("created", json!({"anyOf": [object, {"type": "integer"}]})),
        deep("expand", json!({"type": "array"})),
        {"name": "range", "in": "query", "schema": closed},
        {"name": "ids", "in": "query", "schema": {"type": "array"}},
        {"name": "flat", "in": "query", "explode": false, "schema": object},
        {"name": "any", "in": "query", "schema": {"type": "object"}}
    ]);
    let all = json!({"/a": {"get": {"parameters": parameters, "responses": {}}}});
    let (text, table) = file(&document(all, json!({})), &RuleWishes::default());
    let expected = json!(["created", "created[gt]", "created[lt]", "expand[]", "flat", "from", "ids"]);
    assert_eq!(routes(&table)[0]["query"], expected, "{text}");
    for told in
        ["members of the parameter \"any\"", "members of the parameter \"expand\"", "the parameter \"*\""]
    {
        assert!(text.contains(told), "{told}\n{text}");
    }
}

#[test]
fn a_parameter_that_may_be_plain_or_an_object_has_its_own_name_and_those_of_its_members() {
    let object = json!({"type": "object", "properties": {"gt": {}}});
    let only = json!({"type": ["object", "null"], "properties": {"gt": {}}});
    let of = |style: &str, schema: &Value| {
        let parameter =
            json!([{"name": "p", "in": "query", "style": style, "explode": true, "schema": schema}]);
        let all = json!({"/a": {"get": {"parameters": parameter, "responses": {}}}});
        let (_, table) = file(&document(all, json!({})), &RuleWishes::default());
        routes(&table)[0]["query"].clone()
    };
    for other in [json!({"type": "integer"}), json!({"type": ["null", "string"]}), json!({"enum": [""]})] {
        let either = json!({"anyOf": [object, other]});
        assert_eq!(of("deepObject", &either), json!(["p", "p[gt]"]), "{either}");
        assert_eq!(of("form", &either), json!(["gt", "p"]), "{either}");
    }
    for schema in [only, json!({"allOf": [object, {"type": "object"}]})] {
        assert_eq!(of("deepObject", &schema), json!(["p[gt]"]), "nothing plain in it: {schema}");
        assert_eq!(of("form", &schema), json!(["gt"]), "nothing plain in it: {schema}");
    }
}

/// A document whose paths all are one item, by references, with seven methods and so many parameters, which are one as well.
fn repeated(paths: usize, parameters: usize, schema: &Value) -> Document {
    let parameter = |number: usize| json!({"name": format!("p{number}"), "in": "query", "style": "deepObject", "schema": {"$ref": "#/x-schema"}});
    let all: Vec<_> = (0..parameters).map(parameter).collect();
    let methods = METHODS.iter().filter(|(name, _)| *name != "trace");
    let mut item: Map<_, _> =
        methods.map(|(name, _)| ((*name).to_owned(), json!({"responses": {}}))).collect();
    item.insert("parameters".to_owned(), json!(all));
    let paths: Map<_, _> =
        (0..paths).map(|number| (format!("/{number}"), json!({"$ref": "#/x-item"}))).collect();
    let more = json!({"x-item": item, "x-schema": schema});
    Document::read(&document(Value::Object(paths), more)).unwrap()
}

#[test]
fn a_document_that_repeats_itself_by_references_is_given_up_after_a_bounded_number_of_looks() {
    let plain = json!({"type": "string"});
    let wishes = RuleWishes::default();
    let many = repeated(200_000, 512, &plain);
    let why = of_document(&many, &wishes).unwrap_err();
    assert!(why.contains("more than 4096 operations") && why.contains("--tag"), "{why}");
    assert!(many.looks() < 20_000, "no more is looked at than are taken: {}", many.looks());

    // As few operations as may be, each of which says as much as it can.
    let members: Map<_, _> = (0..512).map(|number| (format!("m{number}"), json!({}))).collect();
    let part = json!({"type": "object", "properties": members});
    let deep = json!({"anyOf": (0..64).map(|_| &part).collect::<Vec<_>>()});
    let wide = repeated(585, 512, &deep);
    let why = of_document(&wide, &wishes).unwrap_err();
    assert!(why.contains("more than 4000000 to look at") && why.contains("--tag"), "{why}");
    assert!(wide.looks() < MAX_LOOKS + 100_000, "what is left is passed over: {}", wide.looks());

    let few = repeated(585, 4, &json!({"type": "object", "properties": {"gt": {}, "lt": {}}}));
    let text = of_document(&few, &wishes).unwrap();
    assert_eq!(text.matches("[[route]]").count(), 585 * 7, "repeating is not forbidden");
    assert!(text.contains("query = [\"p0[gt]\", \"p0[lt]\", \"p1[gt]\""), "{}", &text[..2_000]);
}

#[test]
fn text_comes_before_a_place_and_of_two_for_the_same_requests_one_stays() {
    let get = json!({"get": {"responses": {}}});
    let all =
        json!({"/a/{id}": get, "/a/me": get, "/a/{name}": get, "/{x}/me": get, "/a": get, "/a/{id}/b": get});
    let here = json!({"servers": [{"url": "http://127.0.0.1:8080"}]});
    let (text, table) = file(&document(all, here), &RuleWishes::default());
    assert_eq!(paths(&table), ["/a", "/a/me", "/a/{id}", "/a/{id}/b", "/{x}/me"], "{text}");
    assert!(text.contains("another path is for the same requests"), "{text}");
}

#[test]
fn what_is_wished_for_counts() {
    let operation = |tag: &str, id: &str| json!({"tags": [tag], "operationId": id, "responses": {}});
    let all = json!({"/a": {"get": operation("one", "listA"), "post": operation("two", "no good")}});
    let text = document(all, json!({}));
    let wishes = RuleWishes {
        tool: Some("all".to_owned()),
        actions: Actions::Operation,
        server: Some("https://eu.example/base/".to_owned()),
        tags: vec!["one".to_owned()],
        ..RuleWishes::default()
    };
    let (_, table) = file(&text, &wishes);
    let expected = json!({
        "method": "GET", "path": "/base/a", "tool": "all", "action": "listA", "resource": "a", "body": "none"
    });
    assert_eq!((table["upstream"].as_str(), routes(&table)), (Some("https://eu.example"), vec![expected]));
    let (told, table) = file(&text, &RuleWishes { tags: Vec::new(), ..wishes });
    assert_eq!(routes(&table)[1]["action"], "write");
    assert!(told.contains("POST /a: its operationId as an action"), "{told}");
    for server in [
        "http://api.example",
        "https://api.example?x",
        "https://me:x@api.example",
        "api.example",
        "https://a/../b",
    ] {
        let wishes = RuleWishes { server: Some(server.to_owned()), ..RuleWishes::default() };
        let why = rules(&text, &wishes).unwrap_err();
        assert!(why.starts_with("--server: "), "{server}: {why}");
    }
}

#[test]
fn what_is_no_document_is_said() {
    let swagger = json!({"swagger": "2.0", "paths": {}}).to_string();
    let later = json!({"openapi": "3.10.0", "paths": {}}).to_string();
    let twice = r#"{"openapi":"3.0.0","paths":{},"paths":{"/a":{"get":{}}}}"#;
    let deep = format!("{{\"openapi\":\"3.0.0\",\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let empty = json!({"openapi": "3.0.0", "servers": [{"url": "https://a"}], "paths": {}}).to_string();
    let relative = json!({"openapi": "3.0.0", "servers": [{"url": "/v1"}], "paths": {}}).to_string();
    for (text, why) in [
        (swagger.as_str(), "OpenAPI 3.0 or 3.1"),
        (&later, "OpenAPI 3.0 or 3.1"),
        (twice, "duplicate"),
        (&deep, "inside each other"),
        (&empty, "no paths"),
        (&relative, "--server"),
        ("", "nothing in it"),
        ("hello", "OpenAPI 3.0"),
        ("{", "end"),
        ("- a\n- b\n", "OpenAPI 3.0"),
    ] {
        let error = refused(text.as_bytes());
        assert!(error.contains(why), "{}: {error}", text.get(..60).unwrap_or(text));
    }
    assert!(refused(b"\xff\xfe").contains("UTF-8"));
    assert!(refused(&vec![b' '; MAX_DOCUMENT_BYTES + 1]).contains("longer"));
}
