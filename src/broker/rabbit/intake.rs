//! Taking single deliveries, each when there is room for it.
//!
//! Where there is work, asking for one message is one question and its answer. Where there is none, asking again and
//! again would cost the server a decision of its cluster each time; so then there are consumers with room for one
//! message each, until there is one, or nobody wants any.

use super::consume::{Source, close, in_background, retire, start};
use super::deliver::{Hold, give_back};
use super::fault::Fault;
use super::link::Pace;
use crate::broker::{BrokerError, Delivery, Intake, Queue};
use async_trait::async_trait;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, Stream, StreamExt};
use lapin::message::{BasicGetMessage, Delivery as Message};
use lapin::options::BasicGetOptions;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// Messages that a consumer may hold that nobody asked for yet.
const WAITING: u16 = 1;

pub(super) struct RabbitIntake {
    source: Source,
    open: Option<Open>,
}

/// A channel, and what goes on on it.
struct Open {
    hold: Arc<Hold>,
    consumers: Vec<(Queue, lapin::Consumer)>,
    /// What the server was asked and has not answered, though whoever asked may have gone: the answer may be a message.
    asked: Option<BoxFuture<'static, Answer>>,
}

enum Answer {
    Got(Queue, Result<Option<Box<BasicGetMessage>>, Fault>),
    Consuming(Queue, Result<lapin::Consumer, Fault>),
}

impl RabbitIntake {
    pub(super) fn new(source: Source) -> Self {
        Self { source, open: None }
    }

    async fn next(&mut self, queues: &[Queue]) -> Result<Delivery, Fault> {
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    let hold = self.source.channel(WAITING).await?;
                    self.open.insert(Open { hold, consumers: Vec::new(), asked: None })
                }
            };
            let (queue, message) = open.message(queues).await?;
            if !message.acker.usable() {
                // What is left of a lost channel cannot be settled, and comes again by the next.
                return Err(Fault::Gone(format!("{queue}: the channel was lost")));
            }
            let hold = open.hold.clone();
            match self.source.office.take_in(&hold, queue, message).await? {
                Some(delivery) => return Ok(delivery),
                None => continue,
            }
        }
    }
}

impl Open {
    /// Dropped while it waits, nothing is lost: what was asked stays asked, and what has come stays where it is.
    async fn message(&mut self, queues: &[Queue]) -> Result<(Queue, Message), Fault> {
        if let Some(message) = self.answer(queues).await? {
            return Ok(message);
        }
        for n in (0..self.consumers.len()).rev().filter(|n| !queues.contains(&self.consumers[*n].0)).collect::<Vec<_>>() {
            self.stop(n);
        }
        for queue in queues {
            if let Some(n) = self.consumers.iter().position(|(q, _)| q == queue) {
                if let Some(come) = self.consumers[n].1.next().now_or_never() {
                    return self.came(n, come);
                }
            } else {
                self.asked = Some(get(self.hold.clone(), *queue).boxed());
                if let Some(message) = self.answer(queues).await? {
                    return Ok(message);
                }
            }
        }
        for queue in queues {
            if !self.consumers.iter().any(|(q, _)| q == queue) {
                let (hold, queue) = (self.hold.clone(), *queue);
                self.asked = Some(async move { Answer::Consuming(queue, start(hold, queue).await) }.boxed());
                self.answer(queues).await?;
            }
        }
        let (hold, consumers) = (self.hold.clone(), &mut self.consumers);
        let coming = poll_fn(|cx| {
            for queue in queues {
                let Some(n) = consumers.iter().position(|(q, _)| q == queue) else { continue };
                if let Poll::Ready(come) = Pin::new(&mut consumers[n].1).poll_next(cx) {
                    return Poll::Ready((n, come));
                }
            }
            Poll::Pending
        });
        let (n, come) = hold.answer(coming).await?;
        self.came(n, come)
    }

    /// Waits for the answer to what was asked; a message, if it is one of these queues.
    async fn answer(&mut self, queues: &[Queue]) -> Result<Option<(Queue, Message)>, Fault> {
        let Some(asked) = &mut self.asked else { return Ok(None) };
        let answer = asked.await;
        self.asked = None;
        match answer {
            Answer::Consuming(queue, consumer) => {
                self.consumers.push((queue, consumer?));
                Ok(None)
            }
            Answer::Got(queue, message) => match message? {
                Some(message) if queues.contains(&queue) => Ok(Some((queue, message.delivery))),
                Some(message) => {
                    give_back(&message.delivery.acker);
                    Ok(None)
                }
                None => Ok(None),
            },
        }
    }

    fn came(&mut self, n: usize, come: Option<lapin::Result<Message>>) -> Result<(Queue, Message), Fault> {
        let queue = self.consumers[n].0;
        match come {
            Some(Ok(message)) => {
                // It has room for no other until this one is settled; then it would take one that nobody asked for.
                self.stop(n);
                Ok((queue, message))
            }
            Some(Err(error)) => Err(Fault::from(&error)),
            None => {
                self.consumers.remove(n);
                Err(Fault::Gone(format!("{queue}: the server ended the consumer")))
            }
        }
    }

    fn stop(&mut self, n: usize) {
        let (_, consumer) = self.consumers.remove(n);
        in_background(retire(self.hold.clone(), consumer));
    }

    /// Gives back what nobody took, and stops everything that brings more.
    async fn rest(hold: Arc<Hold>, mut consumers: Vec<(Queue, lapin::Consumer)>, asked: Option<BoxFuture<'static, Answer>>) {
        if let Some(asked) = asked {
            match asked.await {
                Answer::Got(_, Ok(Some(message))) => give_back(&message.delivery.acker),
                Answer::Consuming(queue, Ok(consumer)) => consumers.push((queue, consumer)),
                Answer::Got(..) | Answer::Consuming(..) => {}
            }
        }
        join_all(consumers.into_iter().map(|(_, consumer)| retire(hold.clone(), consumer))).await;
    }
}

async fn get(hold: Arc<Hold>, queue: Queue) -> Answer {
    let name = queue.to_string();
    let got = hold.answer(hold.channel.basic_get(name.as_str().into(), BasicGetOptions::default())).await;
    let got = got.and_then(|got| got.map_err(|e| Fault::from(&e).at(&name)));
    Answer::Got(queue, got.map(|got| got.map(Box::new)))
}

#[async_trait]
impl Intake for RabbitIntake {
    async fn take(&mut self, queues: &[Queue]) -> Result<Delivery, BrokerError> {
        let mut pace = Pace::new();
        loop {
            match self.next(queues).await {
                Ok(delivery) => return Ok(delivery),
                Err(fault) => {
                    // With its channel, if that is still there, goes everything that was under way on it.
                    if let Some(open) = self.open.take() {
                        in_background(async move { close(&open.hold).await });
                    }
                    self.source.after(fault, &mut pace).await?;
                }
            }
        }
    }

    async fn pause(&mut self) {
        let Some(open) = &mut self.open else { return };
        let (consumers, asked) = (std::mem::take(&mut open.consumers), open.asked.take());
        // To its end, even if whoever asked for it does not wait.
        if let Some(rest) = in_background(Open::rest(open.hold.clone(), consumers, asked)) {
            let _ = rest.await;
        }
    }
}

impl Drop for RabbitIntake {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            in_background(Open::rest(open.hold, open.consumers, open.asked));
        }
    }
}
