//! What a visitor holds: kind of device, operating system, browser, and whether it is a machine that browses.

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in the order of the discriminants.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The lower-case name used in rules, logs and the API.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// The value of that exact name.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names!(
    /// The kind of device. An iPad is a tablet, and so is an Android that does not say `Mobile`.
    DeviceKind {
        Desktop = "desktop",
        Mobile = "mobile",
        Tablet = "tablet",
        Tv = "tv",
        Console = "console",
        /// Everything that could not be told, libraries included.
        Other = "other",
    }
);

names!(
    /// The operating system.
    Os {
        Windows = "windows",
        MacOs = "macos",
        Ios = "ios",
        Android = "android",
        Linux = "linux",
        ChromeOs = "chromeos",
        Other = "other",
    }
);

names!(
    /// The browser. A page shown inside another app is `webview`.
    Browser {
        Chrome = "chrome",
        Safari = "safari",
        Firefox = "firefox",
        Edge = "edge",
        Opera = "opera",
        Samsung = "samsung",
        Webview = "webview",
        Other = "other",
    }
);

/// All that a User-Agent and its client hints tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub kind: DeviceKind,
    pub os: Os,
    pub browser: Browser,
    /// A crawler, a library, a headless browser or a link-preview agent: no person clicked.
    pub bot: bool,
}

impl Device {
    /// What an absent or unintelligible User-Agent tells.
    pub const UNKNOWN: Device =
        Device { kind: DeviceKind::Other, os: Os::Other, browser: Browser::Other, bot: false };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for &kind in DeviceKind::ALL {
            assert_eq!(DeviceKind::parse(kind.as_str()), Some(kind));
        }
        for &os in Os::ALL {
            assert_eq!(Os::parse(os.as_str()), Some(os));
        }
        for &browser in Browser::ALL {
            assert_eq!(Browser::parse(browser.as_str()), Some(browser));
        }
        assert_eq!(DeviceKind::parse("Mobile"), None);
    }
}
