//! What the protocols have in common: a table of methods, each with its parameters and its result.

use core::fmt::Debug;

use self::sealed::{BodyReader, BodyWriter};

/// One socket's protocol: [`AgentProtocol`](crate::message::AgentProtocol),
/// [`AuthProtocol`](crate::auth::AuthProtocol), [`ControlProtocol`](crate::control::ControlProtocol),
/// [`AuthControlProtocol`](crate::auth_control::AuthControlProtocol), [`RsControlProtocol`](crate::rs_control::RsControlProtocol) or
/// [`AsControlProtocol`](crate::as_control::AsControlProtocol). No others can be defined outside this crate.
pub trait Protocol: sealed::Sealed + Sized + 'static {
    /// A method without its parameters.
    type Method: Copy + Debug + Eq + Send + Sync + 'static;
    /// A method with its parameters.
    type Request: Debug + Send;
    /// A method's result.
    type Reply: Debug + Send;

    /// All methods. A method's place is its number in the binary codec.
    const METHODS: &'static [Self::Method];

    /// The method that `request` calls.
    fn method_of(request: &Self::Request) -> Self::Method;

    /// The method that `reply` answers.
    fn method_of_reply(reply: &Self::Reply) -> Self::Method;

    /// The method's name in JSON-RPC.
    fn method_name(method: Self::Method) -> &'static str;

    #[doc(hidden)]
    fn read_request<R: BodyReader>(method: Self::Method, reader: R) -> Result<Self::Request, R::Error>;

    #[doc(hidden)]
    fn read_reply<R: BodyReader>(method: Self::Method, reader: R) -> Result<Self::Reply, R::Error>;

    #[doc(hidden)]
    fn write_request<W: BodyWriter>(request: &Self::Request, writer: W) -> Result<(), W::Error>;

    #[doc(hidden)]
    fn write_reply<W: BodyWriter>(reply: &Self::Reply, writer: W) -> Result<(), W::Error>;
}

/// What the codecs and the table of methods say to each other, out of reach for other crates.
pub(crate) mod sealed {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use crate::binary::Binary;

    pub trait Sealed {}

    /// Parameters or a result: something that every codec can carry.
    pub trait Part: Serialize + DeserializeOwned + Binary {}

    impl<T: Serialize + DeserializeOwned + Binary> Part for T {}

    /// A codec that has come to where the parameters or the result are.
    pub trait BodyReader {
        type Error;
        fn read<T: Part>(self) -> Result<T, Self::Error>;
    }

    /// A codec that has come to where the parameters or the result go.
    pub trait BodyWriter {
        type Error;
        fn write<T: Part>(self, part: &T) -> Result<(), Self::Error>;
    }
}

/// Defines a protocol from its table: `Variant "jsonName" (Parameters) -> Result`.
macro_rules! protocol {
    (
        $(#[$doc:meta])*
        $protocol:ident { $method:ident, $request:ident, $reply:ident }
        $( $(#[$method_doc:meta])* $variant:ident $name:literal ($params:ty) -> $result:ty; )+
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $protocol {}

        #[doc = concat!("A method of [`", stringify!($protocol), "`].")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $method { $( $(#[$method_doc])* $variant, )+ }

        #[doc = concat!("A request of [`", stringify!($protocol), "`]: a method and its parameters.")]
        #[derive(Debug)]
        pub enum $request { $( $(#[$method_doc])* $variant($params), )+ }

        #[doc = concat!("A result of [`", stringify!($protocol), "`], by the method it answers.")]
        #[derive(Debug)]
        #[allow(clippy::large_enum_variant, reason = "one at a time, made and sent")]
        pub enum $reply { $( $(#[$method_doc])* $variant($result), )+ }

        impl $crate::protocol::sealed::Sealed for $protocol {}

        impl $crate::protocol::Protocol for $protocol {
            type Method = $method;
            type Request = $request;
            type Reply = $reply;

            const METHODS: &'static [$method] = &[$( $method::$variant, )+];

            fn method_of(request: &$request) -> $method {
                match request { $( $request::$variant(_) => $method::$variant, )+ }
            }

            fn method_of_reply(reply: &$reply) -> $method {
                match reply { $( $reply::$variant(_) => $method::$variant, )+ }
            }

            fn method_name(method: $method) -> &'static str {
                match method { $( $method::$variant => $name, )+ }
            }

            fn read_request<R: BodyReader>(method: $method, reader: R) -> Result<$request, R::Error> {
                match method { $( $method::$variant => reader.read().map($request::$variant), )+ }
            }

            fn read_reply<R: BodyReader>(method: $method, reader: R) -> Result<$reply, R::Error> {
                match method { $( $method::$variant => reader.read().map($reply::$variant), )+ }
            }

            fn write_request<W: BodyWriter>(request: &$request, writer: W) -> Result<(), W::Error> {
                match request { $( $request::$variant(params) => writer.write(params), )+ }
            }

            fn write_reply<W: BodyWriter>(reply: &$reply, writer: W) -> Result<(), W::Error> {
                match reply { $( $reply::$variant(result) => writer.write(result), )+ }
            }
        }
    };
}
pub(crate) use protocol;
