//! Any message, understood.
use crate::frame::{Frame, MessageType};
use crate::notification::Notification;
use crate::open::Open;
use crate::route_refresh::RouteRefresh;
use crate::update::{Context, Update};

/// One message.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update<'a>),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
}

impl<'a> Message<'a> {
    /// Reads the message in a frame.
    ///
    /// # Errors
    /// The NOTIFICATION that must end the session.
    pub fn decode(frame: Frame<'a>, context: Context) -> Result<Self, Notification> {
        Ok(match frame.kind {
            MessageType::Open => Message::Open(Open::decode(frame.body)?),
            MessageType::Update => Message::Update(Update::decode(frame.body, context)?),
            MessageType::Notification => Message::Notification(Notification::decode(frame.body)?),
            MessageType::Keepalive => Message::Keepalive,
            MessageType::RouteRefresh => Message::RouteRefresh(RouteRefresh::decode(frame.body)?),
        })
    }
}
