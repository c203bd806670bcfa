//! Whom or what an operator's order is about. In JSON an object with exactly one member, whose name is the kind; in the
//! binary form the number of the kind and then the name.

/// Defines one socket's kinds of scope: perhaps `All`, and what is named. Each has its number in the binary form.
macro_rules! scope {
    (
        $(#[$doc:meta])*
        $scope:ident {
            $(#[$all_doc:meta])* All = $all:literal,
            $( $(#[$member_doc:meta])* $member:ident($name:ty $(, read by $reader:literal)?) = $number:literal, )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "ScopeMember", into = "ScopeMember")]
        pub enum $scope {
            $(#[$all_doc])*
            All,
            $( $(#[$member_doc])* $member($name), )+
        }

        /// The object's one member.
        #[derive(Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        enum ScopeMember {
            All(bool),
            $( $( #[serde(deserialize_with = $reader)] )? $member($name), )+
        }

        impl TryFrom<ScopeMember> for $scope {
            type Error = ValueError;

            fn try_from(member: ScopeMember) -> Result<Self, ValueError> {
                match member {
                    ScopeMember::All(true) => Ok(Self::All),
                    ScopeMember::All(false) => Err(ValueError::new("all", "true where it is given")),
                    $( ScopeMember::$member(name) => Ok(Self::$member(name)), )+
                }
            }
        }

        impl From<$scope> for ScopeMember {
            fn from(scope: $scope) -> Self {
                match scope {
                    $scope::All => Self::All(true),
                    $( $scope::$member(name) => Self::$member(name), )+
                }
            }
        }

        impl Binary for $scope {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                let number: u32 = match self {
                    Self::All => $all,
                    $( Self::$member(_) => $number, )+
                };
                number.put(output)?;
                match self {
                    Self::All => Ok(()),
                    $( Self::$member(name) => name.put(output), )+
                }
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                match u32::take(input)? {
                    $all => Ok(Self::All),
                    $( $number => Binary::take(input).map(Self::$member), )+
                    other => $crate::binary::unknown_variant("kind of scope", other),
                }
            }
        }
    };
    (
        $(#[$doc:meta])*
        $scope:ident {
            $( $(#[$member_doc:meta])* $member:ident($name:ty $(, read by $reader:literal)?) = $number:literal, )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub enum $scope {
            $( $(#[$member_doc])* $( #[serde(deserialize_with = $reader)] )? $member($name), )+
        }

        impl Binary for $scope {
            fn put(&self, output: &mut Output<'_>) -> Result<(), EncodeError> {
                match self {
                    $( Self::$member(name) => u32::put(&$number, output).and_then(|()| name.put(output)), )+
                }
            }

            fn take(input: &mut Input<'_>) -> Result<Self, BinaryError> {
                match u32::take(input)? {
                    $( $number => Binary::take(input).map(Self::$member), )+
                    other => $crate::binary::unknown_variant("kind of scope", other),
                }
            }
        }
    };
}
pub(crate) use scope;
